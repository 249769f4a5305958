#!lua name=lockstep_v1
-- The writers' side of the online store. Redis runs each call as a whole, so the rules below hold
-- whatever the number, order or duplication of the calls.
--
-- keys[1] is the bucket's hash `<namespace>:{<entity>:<bucket>}!seal`; per view it holds
--   <view>        the seal: what has been pushed completely (opaque text)
--   table:<view>  the Delta table that the view's rows come from, or 'wiping <table>'
--   push:<view>   JSON, push id -> last chunk that arrived; emptied by the seal
-- The other keys are hashes of entities with one packed value per view.

local HEADER_BYTES = 33
local ROW, TOMBSTONE = 1, 2
local GRACE_MS = 3600000 -- what arrives expired is kept so long, so that it still beats older rows

-- V and kind of a packed value; nil when it is none.
local function header_of(value)
  if #value < HEADER_BYTES then return nil end
  local kind, version = struct.unpack('>BI8', value)
  if kind ~= ROW and kind ~= TOMBSTONE then return nil end
  return version, kind
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Key expiry only frees memory, and several views share the key: the longest one decides.
-- present: PEXPIRETIME before the row was written; -2 no key, -1 no expiry, else ms since 1970.
local function set_expiry(key, present, expire_at)
  if expire_at == 0 then
    if present >= 0 then redis.call('PERSIST', key) end
  elseif present == -2 or (present >= 0 and expire_at > present) then
    redis.call('PEXPIREAT', key, string.format('%.0f', expire_at))
  end
end

-- Takes the value unless a newer Delta version wrote the field. Returns whether it was taken.
local function compare_and_set(key, view, version, value, expire_at, stored_version)
  if stored_version > version then return false end
  local present = redis.call('PEXPIRETIME', key)
  redis.call('HSET', key, view, value)
  set_expiry(key, present, expire_at)
  return true
end

-- Why the bucket does not take the chunk; nil when it does.
local function refusal(bucket, args, last_chunk)
  local claim = redis.call('HGET', bucket, 'table:' .. args[1])
  if claim and claim ~= args[2] then
    return 'LSTABLE ' .. bucket .. ' belongs to table ' .. claim
  end
  if (redis.call('HGET', bucket, args[1]) or '') ~= args[6] then
    return 'LSSEAL ' .. bucket .. ' was sealed by another push'
  end
  if tonumber(args[5]) > last_chunk + 1 then
    return 'LSGAP ' .. bucket .. ' has chunk ' .. last_chunk .. ' and was sent ' .. args[5]
  end
end

-- Versions stored per key (-1 none) and kinds sent per key, or nil and what is wrong with them.
local function read_rows(keys, args, version)
  local versions, kinds = {}, {}
  for i = 2, #keys do
    local sent, kind = header_of(args[4 + 2 * i])
    if sent ~= version then
      return nil, 'LSVALUE a value for ' .. keys[1] .. ' is not packed from version ' .. args[3]
    end
    local stored = redis.call('HGET', keys[i], args[1])
    versions[i], kinds[i] = stored and header_of(stored) or -1, kind
    if stored and versions[i] == -1 then
      return nil, 'LSVALUE ' .. keys[1] .. ' holds a value that is not packed by this layout'
    end
  end
  return versions, kinds
end

-- One chunk of a push.
-- args: view, table id, V, push id, chunk number from 1, the seal the push started from ('' none),
--       the seal to set ('' unless this is the bucket's last chunk), then per entity key:
--       packed value, expiry in ms since 1970 (0 never)
-- Returns {rows written, tombstones written, rejected as older, of the written: already expired}.
local function push(keys, args)
  local bucket, view, version = keys[1], args[1], tonumber(args[3])
  local push_id, seal = args[4], args[7]
  if seal ~= '' and redis.call('HGET', bucket, view) == seal then return { 0, 0, 0, 0 } end
  local pushes = cjson.decode(redis.call('HGET', bucket, 'push:' .. view) or '{}')
  local last_chunk = pushes[push_id] or 0
  local why = refusal(bucket, args, last_chunk)
  if why then return redis.error_reply(why) end
  local versions, kinds = read_rows(keys, args, version)
  if not versions then return redis.error_reply(kinds) end

  local now, written, removed, older, expired = now_ms(), 0, 0, 0, 0
  for i = 2, #keys do
    local value, expire_at = args[4 + 2 * i], tonumber(args[5 + 2 * i])
    local late = expire_at ~= 0 and expire_at <= now
    if late then expire_at = now + GRACE_MS end -- an expiry in the past would delete every view
    if not compare_and_set(keys[i], view, version, value, expire_at, versions[i]) then
      older = older + 1
    else
      if kinds[i] == TOMBSTONE then removed = removed + 1 else written = written + 1 end
      if late then expired = expired + 1 end
    end
  end

  redis.call('HSET', bucket, 'table:' .. view, args[2])
  if seal == '' then
    pushes[push_id] = math.max(last_chunk, tonumber(args[5]))
    redis.call('HSET', bucket, 'push:' .. view, cjson.encode(pushes))
  else
    redis.call('HSET', bucket, view, seal)
    redis.call('HDEL', bucket, 'push:' .. view)
  end
  return { written, removed, older, expired }
end

-- One step of removing a view from a bucket. Pushes are refused from 'begin' to 'finish'.
-- args: view, step (begin | rows | finish), table id that may push afterwards ('' any)
-- Returns the number of fields removed.
local function wipe(keys, args)
  local bucket, view, step = keys[1], args[1], args[2]
  local claim_field, wiping = 'table:' .. view, 'wiping ' .. args[3]
  if step == 'begin' then
    redis.call('HSET', bucket, claim_field, wiping)
    return redis.call('HDEL', bucket, view, 'push:' .. view)
  end
  if redis.call('HGET', bucket, claim_field) ~= wiping then
    return redis.error_reply('LSWIPE ' .. bucket .. ' is not being wiped for this table any more')
  end
  if step == 'finish' then
    if args[3] == '' then return redis.call('HDEL', bucket, claim_field) end
    redis.call('HSET', bucket, claim_field, args[3])
    return 0
  end
  local removed = 0
  for i = 2, #keys do removed = removed + redis.call('HDEL', keys[i], view) end
  return removed
end

redis.register_function('lockstep_v1_push', push)
redis.register_function({
  function_name = 'lockstep_v1_wipe',
  callback = wipe,
  flags = { 'allow-oom' }, -- it makes room
})
