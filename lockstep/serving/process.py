"""What `lockstep serve` runs: the checks before it listens, and the service."""

from lockstep.catalog import discover
from lockstep.clock import utc_now
from lockstep.project import Project
from lockstep.serving.aclient import AsyncClient
from lockstep.serving.client import url_of
from lockstep.serving.lifeline import line_to_supervisor
from lockstep.serving.messages import LOGGER, configure_logging
from lockstep.serving.server import (
    Service,
    bound_socket,
    require_safe,
    serve,
    worker_socket,
)
from lockstep.serving.settings import ServingSettings
from lockstep.serving.tracing import Tracing, tracing_from
from lockstep.stores.address import Address


def run(
    project: Project, settings: ServingSettings, *, insecure: bool, worker: int | None = None
) -> int:
    """Serve in this process until SIGTERM or SIGINT; return the exit status.

    Args:
        worker: Number of a worker that shares the port with others.

    Raises:
        ConfigError: A setting or an OTEL_ variable is wrong, the address is taken, or others could
            read what they should not.
        OnlineError: The project's own server was never started.
    """
    configure_logging()
    url = url_of(project)
    for warning in require_safe(settings, Address.parse(url), insecure=insecure):
        LOGGER.warning("%s", warning)
    listening = [bound_socket(settings, worker=worker)]
    if worker is not None:
        listening.append(worker_socket(settings, worker))
    catalog = discover(project)
    for path, why in catalog.broken.items():
        LOGGER.warning("%s is broken and its views are not served. %s", path.name, why)
    tracing = tracing_from()
    client = client_class(tracing)(
        catalog, url, namespace=project.namespace, deadline=settings.deadline
    )
    line = None if worker is None else line_to_supervisor()
    serve(Service(project, catalog, client, settings, tracing, utc_now), listening, line)
    return 0


def client_class(tracing: Tracing) -> type[AsyncClient]:
    """Return the client that records spans, if they go anywhere."""
    if not tracing.on:
        return AsyncClient
    from lockstep.serving.traced import TracedClient

    return TracedClient
