"""The command line, `kshot`."""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from kshot import VARIANTS, cards, tasks
from kshot import variant as find
from kshot.agents import make_agent
from kshot.evaluation import evaluate
from kshot.family import Variant
from kshot.rendering.film import film as _film
from kshot.rendering.film import first_and_last
from kshot.results import Result, ResultError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Task families for meta-reinforcement-learning.",
)
console = Console()
errors = Console(stderr=True)
RESULTS = Path("baselines/results")
_OWN = (Path(__file__).parent, Path(__file__).parents[2] / "baselines")  # where our own code lies
_LINE_EVERY = 5.0  # seconds between lines of progress where there is no terminal

Id = Annotated[str, typer.Argument(metavar="ID", help="a variant, as kshot/PointGoal-v0 or PointGoal-v0")]
AgentName = Annotated[
    str, typer.Option(help="random, expert, ucb1, …, policy.safetensors, module:attribute or file.py:attribute")
]
SplitName = Annotated[str, typer.Option(help="train, val, test, or one of the variant's ood splits")]
Seed = Annotated[int, typer.Option(min=0, help="of the evaluation and of the agent's own choices")]


@app.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="show ids that contain this")] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="as a Markdown table")] = False,
) -> None:
    """Show all variants."""
    chosen = [v for v in VARIANTS.values() if pattern.lower() in v.id.lower()]
    if not chosen:
        errors.print(f"no id contains {pattern!r}", markup=False)
        raise typer.Exit(2)
    rows = cards.table(chosen)
    if markdown:
        print(cards.markdown_table(rows), end="")
        return
    if not console.is_terminal:
        print("\n".join("\t".join(row) for row in rows))
        return
    table = Table(Column(rows[0][0], overflow="fold", no_wrap=True), *rows[0][1:], expand=True)
    for row in rows[1:]:
        table.add_row(*row)
    console.print(table)


@app.command()
def show(id: Id) -> None:
    """Show a variant's card: formula, splits with their laws and kinds, spaces, budgets, source."""
    text = cards.card(_find(id))
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        print(text, end="")


@app.command("evaluate")
def evaluate_(
    id: Id,
    agent: AgentName = "random",
    split: Annotated[list[str] | None, typer.Option(help="repeat for several; by default all but val")] = None,
    episodes: Annotated[
        int | None, typer.Option(min=1, help="a task; by default enough for the variant's budgets")
    ] = None,
    num_tasks: Annotated[
        int | None, typer.Option("--tasks", min=1, help="the first so many; by default what the protocol scores")
    ] = None,
    seed: Seed = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value for the agent's constructor, as prior=0; repeat")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="folder to save results, and a policy file, in")] = None,
) -> None:
    """Score an agent on frozen tasks, and save the results as JSON."""
    v = _find(id)
    done = []
    for name in split or v.scored_splits:
        with progress_of(f"{v.id} {name}") as report, clear_errors():
            who = make_agent(agent, v, seed, **_settings(settings or []))
            done.append(
                evaluate(who, v.id, split=name, episodes=episodes, seed=seed, num_tasks=num_tasks, progress=report)
            )
        if output is not None:
            with clear_errors():
                path = _save(done[-1], output)
                if agent.endswith(".safetensors"):  # so that whoever gets the folder can verify
                    weights = f"{done[-1].agent.config['checkpoint_sha256'][:12]}.safetensors"
                    tasks.write_bytes(output / weights, Path(agent).read_bytes())
            errors.print(f"saved {path}", highlight=False, soft_wrap=True, markup=False)
    _print_scores(v, done)


@app.command()
def watch(
    id: Id,
    agent: AgentName = "random",
    split: SplitName = "test",
    task: Annotated[int, typer.Option(min=0, help="number of the task in the frozen set")] = 0,
    episodes: Annotated[int, typer.Option(min=1, help="consecutive ones on the task")] = 1,
    first_last: Annotated[
        bool, typer.Option("--first-last", help="the first episode and the last side by side, without those between")
    ] = False,
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option(help="an .mp4 or .gif file; by default an .mp4 named after the id")
    ] = None,
) -> None:
    """Film an agent on one frozen task."""
    from kshot.leaderboard import safe_name
    from kshot.rendering.video import write_video

    v = _find(id)
    path = output or Path(f"{v.label}-{safe_name(agent)}.mp4")
    with clear_errors():
        size = len(tasks.frozen(v, split)[0])
        if task >= size:
            raise ValueError(f"--task is {task}; {v.id} {split} has {size} tasks, 0 … {size - 1}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with progress_of(f"{v.id} {split} task {task}") as report:
            shoot = first_and_last if first_last else _film
            write_video(path, shoot(make_agent(agent, v, seed), v, split, task, episodes, seed, report), v.fps)
    print(path)


@app.command()
def freeze(
    pattern: Annotated[str, typer.Argument(help="ids that contain this")] = "",
    check: Annotated[bool, typer.Option("--check", help="only compare with the shipped sets")] = False,
) -> None:
    """Draw the frozen task sets that ship with the package, or check that they would be drawn again."""
    chosen = [v for v in VARIANTS.values() if pattern.lower() in v.id.lower()]
    stale = []
    with progress_of("task sets") as report:
        for i, v in enumerate(chosen):
            if not check:
                tasks.freeze(v)
            elif any(
                tasks.digest(tasks.frozen(v, name)) != tasks.digest(tasks.draw_frozen(v, name)) for name in v.splits
            ):
                stale.append(v.id)
            report((i + 1) / len(chosen))
    if stale:
        errors.print(f"these frozen sets would be drawn otherwise now: {', '.join(stale)}; run `kshot freeze`")
        raise typer.Exit(1)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="folder for the picture and the results")] = Path("runs/demo"),
) -> None:
    """Score two agents on all splits of an analytic and a MuJoCo variant, and draw a picture."""
    from kshot.demo import demo_picture

    plan = [("kshot/PointGoal-v0", ("random", "expert"), 2), ("kshot/HalfCheetahVel-v0", ("random", "gait"), 2)]
    for id, agents, episodes in plan:
        v = find(id)
        done = []
        for agent in agents:
            for name in v.splits:
                with progress_of(f"{id} {agent} {name}") as report:
                    done.append(evaluate(agent, id, split=name, episodes=episodes, progress=report))
                done[-1].save(output / f"{v.label}-{name}-{agent}.json")
        _print_scores(v, done)
    with clear_errors():
        print(f"picture: {demo_picture(output / 'demo.png')}")


@app.command()
def references(
    pattern: Annotated[str, typer.Argument(help="ids that contain this")] = "",
    agent: Annotated[str | None, typer.Option(help="only this reference, as random or psrl-prior0")] = None,
    folder: Annotated[Path, typer.Option(help="where results are kept")] = RESULTS,
    again: Annotated[bool, typer.Option("--again", help="also what is there already")] = False,
) -> None:
    """Evaluate the floors, ceilings and classical learners that methods stand beside, and put them in place."""
    from kshot import references as refs

    chosen = [v for v in VARIANTS.values() if pattern.lower() in v.id.lower()]
    with clear_errors():
        if agent is not None:
            chosen = [v for v in chosen if agent in {r.label for r in refs.references(v, folder)}]
        if not chosen:
            raise ValueError(f"no variant whose id contains {pattern!r} has a reference {agent or ''}".rstrip())
        for v in chosen:
            with progress_of(v.id) as report:
                for path in refs.make(v, folder, agent, again, lambda what, fraction: report(fraction)):
                    print(path, flush=True)


@app.command("leaderboard")
def leaderboard_(
    folder: Annotated[Path, typer.Argument(help="with results")] = RESULTS,
    output: Annotated[Path, typer.Option(help="the page to write")] = Path("leaderboard.md"),
    check: Annotated[bool, typer.Option("--check", help="only say whether the page is stale")] = False,
) -> None:
    """Generate the leaderboard from all results in a folder."""
    from kshot import leaderboard, page

    with clear_errors():
        text = page.markdown(leaderboard.load_all(folder))
        if not check:
            tasks.write_text(output, text)
        elif not output.exists() or output.read_text() != text:
            raise ValueError(f"{output} is stale; run `kshot leaderboard`")


@app.command()
def verify(
    result: Annotated[Path, typer.Argument(help="a result's JSON file")],
    agent: Annotated[str | None, typer.Option(help="module:attribute; by default the result's, if built in")] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="how far returns may be off, as a fraction; by default see the docs")
    ] = None,
    fresh_seed: Annotated[
        int | None, typer.Option(min=1, help="of the fresh tasks, to repeat a verdict; by default random")
    ] = None,
) -> None:
    """Score a result's agent again, on the same tasks and on a fresh draw, and say whether either differs."""
    from kshot import verification

    with progress_of(f"verify {result.name}") as report, clear_errors():
        verdict = verification.verify(result, agent, tolerance=tolerance, fresh_seed=fresh_seed, progress=report)
    print(verdict)
    raise typer.Exit(0 if verdict.ok else 1)


@app.command()
def submit(
    result: Annotated[Path, typer.Argument(help="a result's JSON file")],
    folder: Annotated[Path, typer.Argument(help="where results are kept")] = RESULTS,
    reference: Annotated[bool, typer.Option("--reference", help="a floor or ceiling, not a competitor")] = False,
) -> None:
    """Check a result and put it in its place among the others."""
    from kshot import leaderboard

    with clear_errors():
        print(leaderboard.submit(result, folder, reference=reference))


@app.command()
def plot(
    folder: Annotated[Path, typer.Argument(help="with results")] = RESULTS,
    output: Annotated[Path, typer.Option(help="folder for the pictures")] = Path("runs/plots"),
    suffix: Annotated[str, typer.Option(help=".svg or .png")] = ".svg",
) -> None:
    """Draw adaptation curves, the aggregate and the generalisation gaps of all results in a folder."""
    from kshot import leaderboard, plots

    with clear_errors():
        print(*plots.draw_all(leaderboard.load_all(folder), output, suffix=suffix), sep="\n")


def _save(result: Result, folder: Path) -> Path:
    """Write a result under a name of its own: what another evaluation left there stays."""
    from kshot.leaderboard import evidence, safe_name

    label, who = result.variant.removeprefix("kshot/"), safe_name(result.agent.name) or "agent"
    stem = f"{label}-{result.split}-{who}-seed{result.seed}"
    for name in itertools.chain([stem], (f"{stem}-{i}" for i in itertools.count(2))):
        path = folder / f"{name}.json"
        if not path.exists() or _same(path, result, evidence):
            result.save(path)
            return path
    raise AssertionError


def _same(path: Path, result: Result, evidence: Callable[[Result], Any]) -> bool:
    """Tell whether a file holds the same result."""
    try:
        return bool(evidence(Result.load(path)) == evidence(result))
    except ResultError:
        return False


def _settings(pairs: list[str]) -> dict[str, Any]:
    """Return key=value pairs, values as JSON or else text; ValueError for what is no pair."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"--set {pair}: expected key=value, as --set prior=0")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _print_scores(v: Variant, done: list[Result]) -> None:
    """Print a row a result: its score at each budget that it covers, with intervals over tasks."""
    budgets = [b for b in v.budgets if any(_score(r, b) for r in done)]
    unit = "trials" if v.scored_by_trial else "episodes"
    header = ["agent", "split", "tasks", "episodes", *(f"return after {b} {unit}" for b in budgets)]
    rows = [[r.agent.name, r.split, str(r.tasks.n), str(r.episodes), *(_score(r, b) for b in budgets)] for r in done]
    if not console.is_terminal:
        print(f"{v.id}\n" + "\n".join("\t".join(row) for row in [header, *rows]))
        return
    table = Table(*header, title=v.id)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def _score(result: Result, budget: int) -> str:
    """Return the mean with its 95 % interval over tasks, n/a, or nothing where too few episodes were run."""
    from kshot import leaderboard

    found = leaderboard.scores([result], budget)
    if isinstance(found, str):
        return found
    sample = leaderboard.is_sample(result.variant, result.split, result.tasks.n)
    mean, low, high = leaderboard.summary(found, (result.variant, result.split), "mean", sample)
    return f"{mean:.2f}" if math.isnan(low) else f"{mean:.2f} [{low:.2f}, {high:.2f}]"


@contextmanager
def progress_of(what: str) -> Iterator[Callable[[float], None]]:
    """Show a bar on a terminal, plain lines on anything else."""
    if errors.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=errors, transient=True) as bar:
            row = bar.add_task(what, total=1.0)
            yield lambda fraction: bar.update(row, completed=fraction)
        return
    begun = shown = time.monotonic()

    def report(fraction: float) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - begun > 1 and (now - shown > _LINE_EVERY or fraction == 1):
            shown = now
            print(f"{what}: {100 * fraction:.0f} %", file=sys.stderr)

    yield report


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn what the user can mend into one line and exit status 2."""
    try:
        yield
    except (ValueError, KeyError, RuntimeError, OSError, ImportError) as error:
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        errors.print(f"[red]error:[/red] {escape(text)}", highlight=False, soft_wrap=True)
        if _is_foreign(error):  # a bug of the user's own agent: show where
            raise
        raise typer.Exit(2) from error


def _is_foreign(error: BaseException) -> bool:
    """Tell whether an error was raised outside this package and the libraries it stands on."""
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    file = "" if where is None else where.tb_frame.f_code.co_filename
    own = any(str(folder) in file for folder in _OWN)
    return not own and not any(part in file for part in ("site-packages", "lib/python", "<frozen"))


@app.callback()
def _main() -> None:
    """Task families for meta-reinforcement-learning."""
    sys.path.insert(0, "")  # so that --agent module:attribute finds a module of the current folder


def _find(id: str) -> Variant:
    with clear_errors():
        return find(id)
    raise AssertionError


def main() -> None:
    """Run the command line, with the commands of installed packages such as the baselines."""
    for entry in entry_points(group="kshot.commands"):
        entry.load()(app)
    app()
