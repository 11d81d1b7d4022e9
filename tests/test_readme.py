"""Every command in README.md and docs/ is run here, and what the pages say is held against the code.

How a page says what is to happen:
- a fence `sh`: a script. Each command must end with 0, or with the code that its comment names (`# exit 65`).
- a comment with `Ctrl-C`: SIGINT goes to the command's process group, as from a terminal, while its first call is in flight.
- a fence `python`: a program.
- a fence `text` is an illustration and not run, but for a crontab's lines, whose commands are.
- a fence `json`: has to be JSON; a fence `toml` a config file.

Each script has a folder of its own with the samples in it, and a simulator for a provider. What reaches providers by another name
(Ollama's port, Azure's host, the port of `lcbatch simulate`) is sent to it by replacing the address in the script; Azure's path
is put right on the way by `Relay`. So Azure's client is the real one; that Azure's own servers answer, only Azure can show.
"""

from __future__ import annotations

import csv
import http.client
import http.server
import json
import os
import re
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lcbatch import errors, job
from lcbatch.cli.config import config_options
from lcbatch.simulator.process import SimulatorProcess

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BIN = Path(sys.executable).parent
TIMEOUT_S = 60

FILTERED = "Look at what failed, and try another model"
"""The heading under whose script the provider's content filter withholds the second to fourth answer."""


@dataclass(frozen=True)
class Block:
    """A fenced block: the page and heading it stands under."""

    page: Path
    heading: str
    language: str
    text: str
    line: int

    @property
    def name(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    heading, language, start, lines = "", None, 0, list[str]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if language is None and line.startswith("#"):
            heading = line.lstrip("# ")
        if not line.startswith("```"):
            lines.append(line)
        elif language is None:
            language, start, lines = line[3:].strip(), number, []
        else:
            yield Block(page, heading, language, "\n".join(lines), start)
            language = None


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def blocks(*languages: str) -> list[Any]:
    return [pytest.param(block, id=block.name) for block in BLOCKS if block.language in languages]


@dataclass(frozen=True)
class Step:
    """One command of a script, and the exit code that the page promises."""

    command: str
    expected: int
    interrupted: bool


def steps_of(script: str) -> list[Step]:
    """The commands, joined over lines until bash takes them for whole."""
    steps, begun = list[Step](), ""
    for line in script.splitlines():
        begun = f"{begun}\n{line}" if begun else line
        if begun.endswith("\\") or not _is_whole(begun):
            continue
        comment = begun.rpartition("#")[2] if "#" in begun else ""
        code = re.search(r"\bexit (\d+)", comment)
        if begun.strip() and not begun.lstrip().startswith("#"):
            steps.append(Step(begun, int(code[1]) if code else 0, "Ctrl-C" in comment))
        begun = ""
    assert not begun, f"bash cannot parse: {begun}"
    return steps


def _is_whole(text: str) -> bool:
    if not re.search(r"^\s*(until|while|for|if|case)\b", text):
        return True
    return (
        subprocess.run(["bash", "-n", "-c", text], stderr=subprocess.DEVNULL, check=False, timeout=TIMEOUT_S).returncode
        == 0
    )


class Relay(http.server.ThreadingHTTPServer):
    """Passes requests on to the simulator under the path that it knows; calls `on_first` before the first is answered."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        self.simulator_port = port
        self.on_first: Callable[[], None] | None = None
        self.paths: list[str] = []
        super().__init__(("127.0.0.1", 0), _Passing)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def meet(self, path: str) -> None:
        self.paths.append(path)
        first, self.on_first = self.on_first, None
        if first is not None:
            first()


class _Passing(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Relay

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.meet(self.path)
        connection = http.client.HTTPConnection("127.0.0.1", self.server.simulator_port, timeout=TIMEOUT_S)
        headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-of-nobody"}
        connection.request("POST", "/v1/chat/completions", body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Silent."""


@contextmanager
def relay(port: int) -> Iterator[Relay]:
    with Relay(port) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Bench:
    """Where a page's commands are run: a folder with the samples, an environment, a provider."""

    folder: Path
    simulator: SimulatorProcess
    relay: Relay
    env: dict[str, str]
    said: Path

    def adapted(self, script: str) -> str:
        """The script with the addresses that only its reader has."""
        port = free_port() if "--port 8099" in script else 0
        for said, here in {
            "http://localhost:11434/v1": self.simulator.base_url,
            "https://NAME.openai.azure.com": self.relay.url,
            "--port 8099": f"--port {port}",
            "127.0.0.1:8099": f"127.0.0.1:{port}",
        }.items():
            script = script.replace(said, here)
        return script

    def run(self, script: str) -> list[int]:
        """The exit codes of a script's steps, as one bash sees them."""
        codes = self.folder / ".codes"
        steps = steps_of(self.adapted(script))
        told = "".join(f"{step.command}\necho $? >> {shlex.quote(str(codes))}\n" for step in steps)
        env = dict(self.env)
        if any(step.interrupted for step in steps):
            env["OPENAI_BASE_URL"] = f"{self.relay.url}/v1"
        self.shell(told, env)
        return [int(line) for line in codes.read_text().split()]

    def shell(self, script: str, env: dict[str, str] | None = None, program: str = "bash") -> int:
        """Run a script in a process group of its own; what it leaves running ends with it."""
        with self.said.open("a") as out:
            process = subprocess.Popen(
                [program, "-c", script],
                cwd=self.folder,
                env=env or self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            if "Ctrl-C" in script:
                self.relay.on_first = lambda: os.killpg(process.pid, signal.SIGINT)
            try:
                code = process.wait(TIMEOUT_S)
            finally:
                with_rest_ended(process)
        print(self.said.read_text())  # noqa: T201 - pytest shows it when the test fails
        return code


def with_rest_ended(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait(TIMEOUT_S)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def provider() -> Iterator[tuple[SimulatorProcess, Relay]]:
    with SimulatorProcess() as simulator, relay(simulator.port) as passing:
        yield simulator, passing


@pytest.fixture
def bench(tmp_path: Path, provider: tuple[SimulatorProcess, Relay]) -> Bench:
    simulator, passing = provider
    folder = tmp_path / "here"
    shutil.copytree(ROOT / "samples", folder / "samples", ignore=shutil.ignore_patterns("__pycache__"))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("LCBATCH_", "OPENAI_", "AZURE_"))}
    env |= {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "OPENAI_BASE_URL": simulator.base_url,
        "OPENAI_API_KEY": "sk-of-nobody",
        # What LangChain's own clients leave open at the end (Azure's, a user's chain) is closed by the process's end.
        "PYTHONWARNINGS": "error,ignore::ResourceWarning",
    }
    return Bench(folder, simulator, passing, env, tmp_path / "said.txt")


@pytest.mark.parametrize("block", blocks("sh", "console"))
def test_the_commands_do_what_the_page_says(block: Block, bench: Bench) -> None:
    if re.search(r"\bjq ", block.text) and shutil.which("jq") is None:
        pytest.skip("jq is not installed")

    before = bench.simulator.stats()
    if block.heading == FILTERED:
        number = before["requests"]
        bench.simulator.control(schedule=[f"#{number + 2}-#{number + 4}:filter"])

    codes = bench.run(block.text)

    assert codes == [step.expected for step in steps_of(block.text)]
    paid = Counter(call["sha"] for call in bench.simulator.ledger(since=before["billed"]))
    asked_for = max([1, *map(int, re.findall(r"--samples (\d+)", block.text))])
    assert all(times <= asked_for for times in paid.values()), "a call was paid twice"
    for output in outputs_of(block.text):
        check_answers(bench.folder / output)
    if "azure" in block.text:
        assert any("/deployments/my-deployment/" in path for path in bench.relay.paths)
    said = bench.said.read_text()
    for accident in ("Traceback", "a bug in lcbatch", "Warning", "never awaited", "asynchronous generator"):
        assert accident not in said


def outputs_of(script: str) -> set[str]:
    return set(re.findall(r"-o ([^\s;]+)", script))


def check_answers(path: Path) -> None:
    """Rows, and an answer in every one that did not fail."""
    answers = answers_in(path)
    assert answers, f"{path.name} is empty"
    assert all(answers), f"{path.name} has a row without an answer"


def answers_in(path: Path) -> list[Any]:
    if path.is_dir():
        return [file.read_text(encoding="utf-8").strip() for file in sorted(path.iterdir())]
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [row.get("output") or row.get("embedding") for row in rows]
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            names = ("output", "sentiment", "words", "embedding")
            return [next(filter(None, map(row.get, names)), None) for row in csv.DictReader(file)]
    if path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")
        table = pyarrow.read_table(path)
        answers: list[Any] = table.column("output" if "output" in table.column_names else "embedding").to_pylist()
        return answers
    raise AssertionError(f"{path.name}: what is this?")


@pytest.mark.parametrize("block", blocks("python"))
def test_the_programs_run(block: Block, bench: Bench) -> None:
    (bench.folder / "program.py").write_text(block.text, encoding="utf-8")

    assert bench.shell("python program.py") == 0

    said = bench.said.read_text()
    assert "Warning" not in said
    assert ("(exit code 66)" in said) == ("no-such-folder" in block.text)
    for output in set(re.findall(r'output="([^"]+)"', block.text)) - {"out/"}:
        check_answers(bench.folder / output)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(line, id=f"{block.name}-cron")
        for block in BLOCKS
        if block.language == "text"
        for line in block.text.splitlines()
        if re.match(r"([\d*/,-]+\s+){5}", line)
    ],
)
def test_a_crontab_line_works_as_cron_runs_it(line: str, bench: Bench) -> None:
    command = re.sub(r"^([\d*/,-]+\s+){5}", "", line)
    assert "%" not in command, "cron makes line breaks of these"
    folder = bench.folder.parent / "reviews"
    folder.mkdir()
    shutil.copy(bench.folder / "samples" / "prompts.jsonl", folder)
    (folder / "prompt.txt").write_text("Sentiment: {text}", encoding="utf-8")
    (folder / "key.env").write_text(
        f"export OPENAI_API_KEY=sk-of-nobody OPENAI_BASE_URL={bench.simulator.base_url}\n", encoding="utf-8"
    )
    env = {name: bench.env[name] for name in ("PATH", "HOME")}

    assert bench.shell(command, env, program="sh") == 0
    check_answers(folder / "out.jsonl")


def test_there_is_something_to_run() -> None:
    assert sum(block.language == "sh" for block in BLOCKS) > 10
    assert {block.language for block in BLOCKS} <= {"sh", "console", "python", "text", "json", "toml"}


@pytest.mark.parametrize("block", blocks("json"))
def test_json_is_json(block: Block) -> None:
    for line in block.text.splitlines():
        json.loads(line)


@pytest.mark.parametrize("block", blocks("toml"))
def test_a_config_file_is_one(block: Block, tmp_path: Path) -> None:
    (tmp_path / "lcbatch.toml").write_text(block.text, encoding="utf-8")
    assert job.Job.of("in.jsonl", **config_options("run", None, tmp_path)).options()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
    of_others = {"--port", "--latency", "--fault", "--check", "--quick", "--only", "--million", "--write-docs"}
    assert named <= known_flags() | of_others


def known_flags() -> set[str]:
    own = {"--help", "--version", "--config", "--watch", "--json", "--kind"}
    declared = {spec.name.replace("_", "-") for _, spec in job.declared_options()}
    return (
        own
        | {f"--{name}" for name in declared}
        | {f"--no-{name}" for name in ("flatten", "csv-safe", "ordered", "compile")}
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_extras_that_the_readme_names_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    line = next(
        line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if "lcbatch[parquet]" in line
    )
    named = set(re.findall(r"\b[a-z]+\b", re.sub(r"\(.*?\)", "", line.partition("further:")[2])))
    assert named | {"parquet"} == set(project["optional-dependencies"]) - {"dev"}


def test_the_table_of_exit_codes_is_that_of_the_code() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("## Exit codes")[2].partition("## From Python")[0]
    shown = {
        int(code)
        for line in table.splitlines()
        if line.startswith("|")
        for code in re.findall(r"\b\d+\b", line.rsplit("|", 2)[1])
    }
    ours = {
        error.exit_code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.LcbatchError)
    }
    assert shown == ours | {0, 129, 130, 143}

    again = re.search(r"After ([\d, and]+) the same command", table)
    assert again is not None
    assert {int(code) for code in re.findall(r"\d+", again[1])} == errors.CONTINUABLE


def test_the_names_of_the_kinds_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    assert re.findall(r"`([a-z_]+)`", page.rpartition("Kinds are stable names:")[2]) == [
        kind.value for kind in errors.Kind
    ]
    transient = re.search(r"passing reason \((.*?)\)", page)
    assert transient is not None
    assert set(re.findall(r"`([a-z_]+)`", transient[1])) == {kind.value for kind in errors.TRANSIENT}


def test_the_page_of_options_is_up_to_date() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_options.py"))["page"]()
    assert (ROOT / "docs" / "options.md").read_text(encoding="utf-8") == made, "run docs/make_options.py"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 250


def test_the_picture_loads_nothing_from_elsewhere() -> None:
    picture = (ROOT / "docs" / "progress.svg").read_text(encoding="utf-8")
    assert re.findall(r"https?://[^\"' )]+", picture) == ["http://www.w3.org/2000/svg"]
