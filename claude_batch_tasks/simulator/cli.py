"""The command `claude-batch simulator`: a local Message Batches API for demos and tests."""

from __future__ import annotations

import contextlib
import logging

import click
import msgspec

from .answers.files import read_script
from .scenarios import SCENARIOS, find_scenario
from .script import Scenario
from .server import Control, listen, make_server, require_extra


@click.command("simulator")
@click.option("--scenario", default="healthy", show_default=True, help="See --list-scenarios.")
@click.option("--script", type=click.Path(exists=True, dir_okay=False), help="YAML or JSON with answers and faults.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", default=8787, show_default=True, help="Port to listen at; 0 takes a free one.")
@click.option("--processing-seconds", type=click.FloatRange(min=0), help="How long every batch takes.")
@click.option("--clock-speed", type=click.FloatRange(min=0, min_open=True), help="Simulated seconds per second.")
@click.option("--seed", type=int, help="Seed of everything random.")
@click.option("--quiet", is_flag=True, help="Log nothing.")
@click.option("--list-scenarios", is_flag=True, help="List the scenarios and exit.")
def simulator(
    scenario: str,
    script: str | None,
    host: str,
    port: int,
    processing_seconds: float | None,
    clock_speed: float | None,
    seed: int | None,
    quiet: bool,
    list_scenarios: bool,
) -> None:
    """Serve the Message Batches API locally.

    With faults on demand. Costs nothing, needs no key.
    """
    if list_scenarios:
        for each in SCENARIOS.values():
            click.echo(f"{each.name:18} {each.about}")
        return
    try:
        require_extra()
        chosen = _choose_scenario(scenario, script)
        listener = listen(host, port)
    except (RuntimeError, LookupError, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
    options = {"processing_seconds": processing_seconds, "clock_speed": clock_speed, "seed": seed}
    changes = {name: value for name, value in options.items() if value is not None}
    chosen = msgspec.structs.replace(chosen, behaviour=msgspec.structs.replace(chosen.behaviour, **changes))
    if not quiet:
        logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
        logging.getLogger("claude_batch_tasks.simulator").setLevel(logging.INFO)
        # A server that listens on all addresses is reached locally as localhost.
        shown = "localhost" if host in ("0.0.0.0", "::") else host
        url = f"http://{f'[{shown}]' if ':' in shown else shown}:{listener.getsockname()[1]}"
        click.echo(f"Simulating the Message Batches API at {url} (scenario {chosen.name}). Ctrl-C stops it.\n")
        for name, value in Control(url).env.items():
            click.echo(f"export {name}={value}")
        click.echo("")
    with contextlib.suppress(KeyboardInterrupt):
        make_server(chosen).run(sockets=[listener])


def _choose_scenario(name: str, script: str | None) -> Scenario:
    scenario = find_scenario(name)
    return scenario if script is None else read_script(script, scenario)
