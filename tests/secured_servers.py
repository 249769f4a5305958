"""Servers as they stand in production: by TLS only, or with a user per role."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, Self, TypeAlias
from urllib.parse import quote

import redis

from tests.certificates import Authority, Signed
from tests.redis_cluster import Server, free_ports
from tests.source_tree import ROOT

USERS = ROOT / "deploy" / "redis" / "users.acl"
Role: TypeAlias = Literal["service", "pusher", "admin"]
ROLES: tuple[Role, ...] = ("service", "pusher", "admin")
PASSWORDS: dict[Role, str] = {
    "service": "canary/1:reads@only",
    "pusher": "canary/2:%41?pushes",
    "admin": "canary/3#loads&keeps",
}
"""With characters that a URL must escape, so that a mistake in that shows."""
NAMESPACE = "lockstep:guarded"


@dataclass
class TlsServer:
    """One server without a plain port, and the authority that signed its certificate."""

    server: Server
    authority: Authority

    @classmethod
    @contextmanager
    def running(
        cls,
        folder: Path,
        binary: Path | None,
        *,
        host: str = "localhost",
        certified_clients: bool = False,
    ) -> Iterator[Self]:
        """Start one; killed afterwards.

        Args:
            host: Whom its certificate is for.
            certified_clients: Clients must show a certificate of the same authority.
        """
        authority = Authority(folder / "certificates")
        tester = authority.sign("tester")
        (port,) = free_ports(1)
        server = Server(
            folder,
            port,
            binary=binary,
            settings={
                **tls_settings(authority, port, host),
                "tls-auth-clients": "yes" if certified_clients else "optional",
            },
            client=lambda port: tls_client(port, authority, tester),
        )
        try:
            server.start()
            yield cls(server, authority)
        finally:
            server.kill()

    def url(self, *, host: str = "localhost", query: str | None = None) -> str:
        """How to reach it; the query trusts its authority unless another one is given."""
        said = self.authority.query() if query is None else query
        return f"rediss://{host}:{self.server.port}/0{'?' if said else ''}{said}"


def tls_settings(
    authority: Authority, port: int, host: str, *, address: str | None = None
) -> dict[str, str]:
    """Settings of a server that speaks TLS on that port and nothing else."""
    own = authority.sign(f"server {port}", host=host, address=address)
    return {
        "port": "0",
        "tls-port": str(port),
        "tls-cert-file": f'"{own.certificate}"',
        "tls-key-file": f'"{own.key}"',
        "tls-ca-cert-file": f'"{authority.file}"',
    }


def tls_client(port: int, authority: Authority, shown: Signed) -> "redis.Redis":
    return redis.Redis(
        port=port,
        protocol=2,
        ssl=True,
        ssl_check_hostname=False,
        ssl_ca_certs=str(authority.file),
        ssl_certfile=str(shown.certificate),
        ssl_keyfile=str(shown.key),
    )


def rules(namespace: str = NAMESPACE) -> dict[str, str]:
    """User → rules, as the template gives them with the tests' passwords."""
    text = USERS.read_text(encoding="utf-8").replace("@NAMESPACE@", namespace)
    for role, password in PASSWORDS.items():
        digest = sha256(password.encode()).hexdigest()
        text = text.replace(f"@{role.upper()}_SHA256@", digest)
    lines = (line.split(maxsplit=2) for line in text.splitlines() if line)
    return {user: said for _, user, said in lines}


def login(role: Role, *, password: str | None = None) -> str:
    """User and password as they stand in a URL."""
    return f"lockstep-{role}:{quote(password or PASSWORDS[role], safe='')}@"


@dataclass
class GuardedServer:
    """One server with a user per role, for one namespace."""

    server: Server

    @classmethod
    @contextmanager
    def running(cls, folder: Path, binary: Path | None) -> Iterator[Self]:
        """Start one; killed afterwards."""
        folder.mkdir(parents=True)
        lines = [f"user {user} {said}\n" for user, said in rules().items()]
        lines.append("user test on nopass ~* &* +@all\n")
        (folder / "users.acl").write_text("".join(lines), encoding="utf-8")
        (port,) = free_ports(1)
        server = Server(
            folder,
            port,
            binary=binary,
            settings={"aclfile": "users.acl"},
            client=lambda port: redis.Redis(port=port, username="test", protocol=2),
        )
        try:
            server.start()
            yield cls(server)
        finally:
            server.kill()

    def url(self, role: Role, *, password: str | None = None) -> str:
        """How that role reaches it."""
        return f"redis://{login(role, password=password)}127.0.0.1:{self.server.port}/0"

    def denied(self) -> set[str]:
        """What was refused since the last call, in the server's words."""
        with self.server.client() as client:
            found = client.execute_command("ACL", "LOG")
            client.execute_command("ACL", "LOG", "RESET")
        return {_text(entry) for entry in found}


def _text(entry: object) -> str:
    facts = entry if isinstance(entry, dict) else dict(zip(entry[::2], entry[1::2], strict=True))
    said = facts.get("object", facts.get(b"object"))
    return said.decode() if isinstance(said, bytes) else str(said)
