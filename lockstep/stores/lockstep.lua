#!lua name=lockstep_v1
-- The writers' side of the online store. Redis runs each call as a whole, so the rules below hold
-- whatever the number, order or duplication of the calls.
--
-- keys[1] is the bucket's hash `<namespace>:{<entity>:<bucket>}!seal`; per view it holds
--   <view>        the seal: what has been pushed completely (opaque text)
--   table:<view>  the Delta table that the view's rows come from, or 'wiping <table>'
--   newest:<view> no row of the view in this bucket is newer than this Delta version. Only a wipe
--                 begins it, when no row is left; so if the hash is lost, rows are compared one by one
--   push:<view>   JSON, push id -> last chunk that arrived; emptied by the seal
--   wipe:<view>   JSON, while the view is removed: its era, and wiper -> last step that arrived
-- The other keys are hashes of entities with one packed value per view.

local HEADER_BYTES = 16
local ROW, TOMBSTONE = 1, 2
local VERSIONS = 2 ^ 30 -- the kind is above V in the first four bytes
local GRACE_MS = 3600000 -- what arrives expired is kept so long, so that it still beats older rows

local function is_packed(value)
  if #value < HEADER_BYTES then return false end
  local kind = math.floor(struct.unpack('>I4', value) / VERSIONS)
  return kind == ROW or kind == TOMBSTONE
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- An event_timestamp (5 bytes of a header) in ms since 1970.
local function event_ms(event)
  local high, low = struct.unpack('>bI4', event)
  return (high * 2 ^ 32 + low) * 1000
end

-- When rows of an event_timestamp (5 bytes of a header) may go, as PEXPIREAT takes it, and whether
-- that is over already: then in an hour, because an expiry in the past would delete every view.
local function expiry(event, keep_ms, now)
  local at = event_ms(event) + keep_ms
  local late = at <= now
  return string.format('%.0f', late and now + GRACE_MS or at), late
end

-- Whether a key that gains the view's field is new: no other view has written to the bucket.
local function is_alone(bucket, view)
  for _, field in ipairs(redis.call('HKEYS', bucket)) do
    if string.sub(field, 1, 6) == 'table:' and field ~= 'table:' .. view then return false end
  end
  return true
end

-- Key expiry only frees memory, and several views share the key: the longest one decides. `GT`
-- ignores a key without expiry: one that holds a view without ttl, or one that is new.
-- gained: whether HSET has added the field.
local function set_expiry(key, gained, alone, at)
  if at == nil then
    redis.call('PERSIST', key)
  elseif gained and (alone or redis.call('HLEN', key) == 1) then
    redis.call('PEXPIREAT', key, at)
  else
    redis.call('PEXPIREAT', key, at, 'GT')
  end
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

-- Per key whether a tombstone was sent; or nil and why a value is not taken.
local function read_values(keys, args, version)
  local row, tombstones = struct.pack('>I4', ROW * VERSIONS + version), {}
  local tombstone = struct.pack('>I4', TOMBSTONE * VERSIONS + version)
  for i = 2, #keys do
    local value = args[7 + i]
    local start = string.sub(value, 1, 4)
    if start == tombstone then
      tombstones[i] = true
    elseif start ~= row then
      start = nil
    end
    if not start or #value < HEADER_BYTES then
      return nil, 'LSVALUE a value for ' .. keys[1] .. ' is not packed from version ' .. args[3]
    end
  end
  return tombstones
end

-- Per key: whether the stored row is of a newer version; or nil and what is wrong with one.
local function newer_rows(keys, view, version)
  local newer = {}
  for i = 2, #keys do
    local stored = redis.call('HGET', keys[i], view)
    if stored and not is_packed(stored) then
      return nil, 'LSVALUE ' .. keys[1] .. ' holds a value that is not packed by this layout'
    end
    newer[i] = stored and struct.unpack('>I4', stored) % VERSIONS > version
  end
  return newer
end

-- Writes the rows that are not older than what is stored.
-- tombstones: per key, whether it gets one; newer: per key, whether a newer row is stored, or nil
-- when none is.
-- Returns {rows written, tombstones written, rejected as older, of the written: already expired}.
local function write(keys, args, tombstones, newer)
  local view, keep_ms, now = args[1], tonumber(args[8]), now_ms()
  local alone = is_alone(keys[1], view)
  local written, removed, older, expired = 0, 0, 0, 0
  local last, at, late
  for i = 2, #keys do
    if newer and newer[i] then
      older = older + 1
    else
      local value = args[7 + i]
      if keep_ms > 0 then
        local event = string.sub(value, 5, 9)
        if event ~= last then
          last = event
          at, late = expiry(event, keep_ms, now)
        end
        if late then expired = expired + 1 end
      end
      set_expiry(keys[i], redis.call('HSET', keys[i], view, value) == 1, alone, at)
      if tombstones[i] then removed = removed + 1 else written = written + 1 end
    end
  end
  return { written, removed, older, expired }
end

-- One chunk of a push.
-- args: view, table id, V, push id, chunk number from 1, the seal the push started from ('' none),
--       the seal to set ('' unless this is the bucket's last chunk), how long after its
--       event_timestamp a row is kept in ms (0 for ever), then the packed value of every entity key
-- Returns {rows written, tombstones written, rejected as older, of the written: already expired}.
local function push(keys, args)
  local bucket, view, version = keys[1], args[1], tonumber(args[3])
  local push_id, seal = args[4], args[7]
  if seal ~= '' and redis.call('HGET', bucket, view) == seal then return { 0, 0, 0, 0 } end
  local pushes = cjson.decode(redis.call('HGET', bucket, 'push:' .. view) or '{}')
  local last_chunk = pushes[push_id] or 0
  local why = refusal(bucket, args, last_chunk)
  if why then return redis.error_reply(why) end
  local tombstones, wrong = read_values(keys, args, version)
  if not tombstones then return redis.error_reply(wrong) end
  local newest, newer = tonumber(redis.call('HGET', bucket, 'newest:' .. view) or nil), nil
  if not newest or newest > version then
    newer, wrong = newer_rows(keys, view, version)
    if not newer then return redis.error_reply(wrong) end
  end

  -- Before the rows: if writing ends in an error, those that were written stay.
  if newest and version > newest then redis.call('HSET', bucket, 'newest:' .. view, args[3]) end
  local counts = write(keys, args, tombstones, newer)
  redis.call('HSET', bucket, 'table:' .. view, args[2])
  if seal == '' then
    pushes[push_id] = math.max(last_chunk, tonumber(args[5]))
    redis.call('HSET', bucket, 'push:' .. view, cjson.encode(pushes))
  else
    redis.call('HSET', bucket, view, seal)
    redis.call('HDEL', bucket, 'push:' .. view)
  end
  return counts
end

-- One step of removing a view from a bucket. Pushes are refused from 'begin' to 'finish'. Several
-- may remove it for one table at a time: nothing is added meanwhile, so whoever has removed all that
-- it found finishes for all, and that ends the era. A step of another era comes late; a step before
-- it that this server has never seen was lost in a failover. Neither may finish: rows may be left.
-- args: view, step (begin | rows | finish), table id that may push afterwards ('' any), wiper id,
--       the era that 'begin' answered, the step's number from 1 (both '' for 'begin'), and for
--       'begin' whether to wipe rows of that very table too ('1') or to spare the bucket then
-- Returns the era for 'begin' ('' if the bucket is spared), else the number of fields removed.
local function wipe(keys, args)
  local bucket, view, step, wiper = keys[1], args[1], args[2], args[4]
  local claim_field, wipe_field, wiping = 'table:' .. view, 'wipe:' .. view, 'wiping ' .. args[3]
  local claim = redis.call('HGET', bucket, claim_field)
  local found = claim == wiping and cjson.decode(redis.call('HGET', bucket, wipe_field) or '{}') or {}
  if step == 'begin' then
    if claim == args[3] and args[7] ~= '1' then return '' end
    found.era = found.era or wiper .. ' ' .. table.concat(redis.call('TIME'), '.')
    found.steps = found.steps or {}
    found.steps[wiper] = found.steps[wiper] or 0
    redis.call('HDEL', bucket, view, 'push:' .. view, 'newest:' .. view)
    redis.call('HSET', bucket, claim_field, wiping, wipe_field, cjson.encode(found))
    return found.era
  end
  local last, number = found.era == args[5] and found.steps[wiper], tonumber(args[6])
  if not last or number > last + 1 then
    return redis.error_reply('LSWIPE ' .. bucket .. ' is not being wiped by this process any more')
  end
  if step == 'finish' then
    redis.call('HSET', bucket, 'newest:' .. view, '0')
    redis.call('HDEL', bucket, wipe_field)
    if args[3] == '' then return redis.call('HDEL', bucket, claim_field) end
    redis.call('HSET', bucket, claim_field, args[3])
    return 0
  end
  local removed = 0
  for i = 2, #keys do removed = removed + redis.call('HDEL', keys[i], view) end
  found.steps[wiper] = math.max(last, number)
  redis.call('HSET', bucket, wipe_field, cjson.encode(found))
  return removed
end

-- Frees what key expiry cannot: rows past their time in hashes that other views keep alive, and the
-- fields of views that are not declared any more.
-- keys: hashes of entities in one slot; args: per declared view, name and keep in ms (0 for ever)
-- Returns {fields of undeclared views, rows past their time} that were removed.
local function sweep(keys, args)
  local keep, now, undeclared, dead = {}, now_ms(), 0, 0
  for i = 1, #args, 2 do keep[args[i]] = tonumber(args[i + 1]) end
  for _, key in ipairs(keys) do
    local fields = redis.call('HGETALL', key)
    for i = 1, #fields, 2 do
      local view, value = fields[i], fields[i + 1]
      if keep[view] == nil then
        undeclared = undeclared + redis.call('HDEL', key, view)
      elseif keep[view] > 0 and is_packed(value) then
        local at = event_ms(string.sub(value, 5, 9)) + keep[view]
        if at + GRACE_MS <= now then dead = dead + redis.call('HDEL', key, view) end
      end
    end
  end
  return { undeclared, dead }
end

redis.register_function('lockstep_v1_push', push)
redis.register_function({
  function_name = 'lockstep_v1_sweep',
  callback = sweep,
  flags = { 'allow-oom' },
})
redis.register_function({
  function_name = 'lockstep_v1_wipe',
  callback = wipe,
  flags = { 'allow-oom' }, -- it makes room
})
