"""What the user asks for: one frozen dataclass per group of options, and `Job`, which holds one of each.

A field's declaration is the only place where an option stands: the command line, the environment (`LCBATCH_<NAME>`), the
config file and the Python API all read it from here. Adding an option means adding a field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any

from lcbatch.errors import UsageError
from lcbatch.optionvalues import Endpoint, checked, suggestion

RUN, SUMMARIZE, EMBED = "run", "summarize", "embed"
ALL_TASKS = (RUN, SUMMARIZE, EMBED)
_ASKING = (RUN, SUMMARIZE)
"""The tasks that ask for words: what shapes an answer says nothing about a vector."""

_VECTOR_FIELD = "embedding"
EXTRACTIVE = "lcbatch:extractive"


def option(
    default: Any,
    help_text: str,
    *,
    flag: str | None = None,
    tasks: tuple[str, ...] = ALL_TASKS,
    parse: str | None = None,
    choices: tuple[str, ...] = (),
    metavar: str | None = None,
) -> Any:
    """Declare one option. `parse` names a form to read it from: see optionvalues.py. `tasks` are the commands that have it.

    `flag` is a short form besides `--name`; "" says that there is no flag at all, but only a key of the config file.
    """
    metadata = {
        "help": help_text,
        "flag": flag,
        "tasks": tasks,
        "parse": parse,
        "choices": choices,
        "metavar": metavar,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputOptions:
    """Input"""

    input_format: str | None = option(
        None,
        "How to read the input; else by suffix and by looking.",
        choices=("jsonl", "json", "csv", "tsv", "lines", "parquet", "document"),
    )
    delimiter: str | None = option(None, "Column separator of CSV input.", metavar="CHAR")
    encoding: str = option("utf-8", "Encoding of text input.", metavar="NAME")
    include: tuple[str, ...] = option((), "Only files of a folder that match this glob (repeatable).", metavar="GLOB")
    exclude: tuple[str, ...] = option((), "No files of a folder that match this glob (repeatable).", metavar="GLOB")
    key: str | None = option(
        None, "The fields that make a row what it is, for a custom chain: a,b.", tasks=(RUN,), metavar="FIELDS"
    )
    loader: str | None = option(None, "Read files with this LangChain document loader.", metavar="MODULE:CLASS")
    max_row_bytes: int = option(
        64 * 1024 * 1024, "A larger row or document fails instead of being read.", parse="bytes", metavar="SIZE"
    )
    reader_memory: int = option(
        240 * 1024 * 1024,
        "A PDF, DOCX or HTML file fails where reading it takes more memory.",
        parse="bytes",
        metavar="SIZE",
    )
    chunk_tokens: int = option(
        512, "Longest piece of a document that gets a vector of its own, in tokens.", tasks=(EMBED,), metavar="N"
    )
    chunk_overlap: int = option(
        64, "Tokens at a piece's beginning that the one before ends with.", tasks=(EMBED,), metavar="N"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainOptions:
    """Chain"""

    prompt: str | None = option(
        None, "Template, or @FILE. {name} is replaced by the row's field.", flag="-p", metavar="TEMPLATE"
    )
    system: str | None = option(None, "System text, or @FILE; a template too.", tasks=_ASKING, metavar="TEMPLATE")
    chain: str | None = option(
        None,
        "A LangChain Runnable, a factory or a function of your own.",
        tasks=(RUN,),
        metavar="MODULE:ATTR",
    )
    chain_arg: tuple[str, ...] = option((), "Argument for the factory (repeatable).", tasks=(RUN,), metavar="KEY=VALUE")
    chain_version: str | None = option(
        None, "Stands for your chain's code when deciding whether it changed.", tasks=(RUN,), metavar="TEXT"
    )
    app_dir: str | None = option(None, "Folder to import --chain and --schema from.", tasks=(RUN,), metavar="DIR")
    schema: str | None = option(
        None,
        "Answers are objects: FILE.json, module:Model, or fields as in 'name, age int, kind bug|other'.",
        tasks=(RUN,),
        metavar="SCHEMA",
    )
    parse_retries: int = option(
        1, "How often an answer that does not fit --schema goes back to the model.", tasks=(RUN,), metavar="N"
    )
    samples: int | None = option(
        None,
        "Ask for N answers a row; the field `sample` numbers them.",
        tasks=(RUN, SUMMARIZE),
        metavar="N",
        parse="count",
    )
    dedupe: bool = option(
        default=False, help_text="Call rows that are equal for the chain once.", tasks=(RUN, SUMMARIZE)
    )
    compile: bool = option(default=True, help_text="Run the known parts of --chain as plain calls.", tasks=(RUN,))
    strategy: str = option(
        "auto",
        "Documents in one call (stuff), in parts (map-reduce), or whichever fits.",
        tasks=(SUMMARIZE,),
        choices=("auto", "stuff", "map-reduce"),
    )
    context_tokens: int | None = option(
        None,
        "The model's context; else as its profile says, else 8192.",
        tasks=(SUMMARIZE,),
        metavar="N",
        parse="count",
    )
    map_prompt: str | None = option(
        None, "Template, or @FILE, for a part of a long document.", tasks=(SUMMARIZE,), metavar="TEMPLATE"
    )
    reduce_prompt: str | None = option(
        None, "Template, or @FILE, that merges the answers to the parts.", tasks=(SUMMARIZE,), metavar="TEMPLATE"
    )
    words: int = option(120, "Length of a summary, in words.", tasks=(SUMMARIZE,), metavar="N", parse="count")
    language: str | None = option(None, "Language of the summary.", tasks=(SUMMARIZE,), metavar="NAME")
    focus: str | None = option(None, "What the summary should dwell on.", tasks=(SUMMARIZE,), metavar="TEXT")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Model"""

    model: str | None = option(
        None, "provider:name, as openai:gpt-5-mini. summarize: lcbatch:extractive by default.", flag="-m"
    )
    base_url: str | None = option(None, "Where the provider listens (Ollama, vLLM, a proxy).", metavar="URL")
    api_key_env: str | None = option(None, "Environment variable that holds the key.", metavar="NAME")
    temperature: float | None = option(None, "Sampling temperature.", tasks=_ASKING, metavar="X")
    max_output_tokens: int | None = option(
        None, "Longest answer, in tokens.", tasks=_ASKING, metavar="N", parse="count"
    )
    reasoning_effort: str | None = option(
        None, "For reasoning models: low, medium, high...", tasks=_ASKING, metavar="LEVEL"
    )
    dimensions: int | None = option(
        None, "Length of a vector, where the model can shorten them.", tasks=(EMBED,), metavar="N"
    )
    model_arg: tuple[str, ...] = option((), "Any other model argument (repeatable).", metavar="KEY=JSON")
    schema_method: str = option(
        "auto",
        "How the model is held to --schema; auto goes by what is known of it.",
        tasks=(RUN,),
        choices=("auto", "native", "tool", "json"),
    )
    timeout: float = option(600.0, "Longest time for one attempt.", parse="duration", metavar="TIME")
    fallback: tuple[str, ...] = option(
        (),
        "Model for calls that the first cannot answer (repeatable, in order).",
        tasks=_ASKING,
        metavar="PROVIDER:NAME",
    )
    price: str | None = option(
        None, "US dollars for a million tokens of -m: in=0.25,out=2. Else from genai-prices.", metavar="PRICES"
    )
    endpoints: tuple[Endpoint, ...] = option(
        (), "Addresses that all serve the model, as [[endpoints]] tables.", parse="endpoints", flag=""
    )
    insecure_http: bool = option(default=False, help_text="Let a key travel over plain http beyond this machine.")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """Output"""

    output: str | None = option(
        None, "File (.jsonl .csv .parquet) or folder; stdout without it.", flag="-o", metavar="PATH"
    )
    output_field: str = option(
        "output", f"Name of the field for the answer; embed's is {_VECTOR_FIELD}.", metavar="NAME"
    )
    keep: str = option("all", "Input fields to keep: all, none, or a,b.", metavar="FIELDS")
    meta: bool = option(default=False, help_text="Add model, tokens, cost, latency, attempts, finish reason.")
    ordered: bool | None = option(None, "Write in input order.")
    failed_rows: str | None = option(
        None, "Failed rows in the output (CSV: include, others: omit).", choices=("include", "omit")
    )
    errors: str | None = option(None, "Where failed rows go; else OUT.errors.jsonl.", metavar="PATH")
    store: str | None = option(None, "Where the run store lies; else OUT.lcbatch.", metavar="PATH")
    flatten: bool = option(default=True, help_text="Objects as columns in CSV and Parquet.")
    csv_safe: bool = option(default=True, help_text="Defuse CSV cells that a spreadsheet would run as formulas.")
    normalize: bool = option(default=False, help_text="Vectors of length 1.", tasks=(EMBED,))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Running"""

    concurrency: str = option(
        "auto", "Calls in flight: auto (finds the limit itself), N, or MIN-MAX.", flag="-j", metavar="N"
    )
    rpm: float | None = option(None, "Requests a minute; else learned from the provider's headers.", metavar="N")
    tpm: float | None = option(None, "Tokens a minute; else learned from the provider's headers.", metavar="N")
    batch_size: int = option(256, "Most rows in one request.", tasks=(EMBED,), metavar="N")
    batch_tokens: int = option(200_000, "Most tokens in one request, by estimate.", tasks=(EMBED,), metavar="N")
    max_batch_delay: float = option(
        1.0,
        "Longest time that a row waits for others to go out with it.",
        tasks=(EMBED,),
        parse="duration",
        metavar="TIME",
    )
    max_cost: float | None = option(
        None, "Never spend more US dollars than this on this output, all runs together.", metavar="USD"
    )
    max_total_tokens: int | None = option(
        None, "Never use more tokens than this on this output, all runs together.", metavar="N"
    )
    limit: int | None = option(None, "Call at most N rows in this run.", metavar="N")
    dry_run: bool = option(
        default=False, help_text="Say what would be done, how long it would take and what it would cost; call nothing."
    )
    fresh: bool = option(default=False, help_text="Set the old store and output aside and start anew.")
    on_change: str = option("refuse", "When the chain changed since the last run.", choices=("refuse", "redo", "keep"))
    on_removed: str = option("refuse", "When many rows are gone from the input.", choices=("refuse", "drop", "keep"))
    fail_on: str = option("any", "When failed rows end with exit 3: any, new, N%, never.", metavar="RULE")
    max_failures: str | None = option(None, "Stop after this many failed rows: N or N%.", metavar="N")
    max_time: float | None = option(None, "Stop after this long.", parse="duration", metavar="TIME")
    row_timeout: float | None = option(
        None,
        "Longest time for one row's work; waiting for its turn does not count.",
        tasks=_ASKING,
        parse="duration",
        metavar="TIME",
    )
    max_wait: float = option(3600.0, "Longest wait without any success.", parse="duration", metavar="TIME")
    outage_timeout: float = option(
        3600.0, "Longest wait for a provider that is down.", parse="duration", metavar="TIME"
    )
    if_locked: str = option("fail", "When another run holds the output.", choices=("fail", "skip", "wait"))
    drain_timeout: float | None = option(
        None, "Longest wait for calls in flight on a stop.", parse="duration", metavar="TIME"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayOptions:
    """Display"""

    progress: str = option("auto", "How to show progress.", choices=("auto", "bar", "log", "json", "none"))
    quiet: bool = option(default=False, help_text="Errors only.", flag="-q")
    summary_json: str | None = option(None, "Write the closing figures there.", metavar="FILE")
    debug: bool = option(default=False, help_text="Tracebacks, and what is decided underneath.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run, described: the task, its inputs and a group of options each.

    From Python, `Job.of(...)` takes every option by its own name:

        Job.of("rows.jsonl", output="out.jsonl", model="openai:gpt-5-mini", prompt="Translate: {text}")
    """

    task: str = RUN
    inputs: tuple[str, ...] = ()
    input: InputOptions = InputOptions()
    chain: ChainOptions = ChainOptions()
    model: ModelOptions = ModelOptions()
    output: OutputOptions = OutputOptions()
    run: RunOptions = RunOptions()
    display: DisplayOptions = DisplayOptions()

    @classmethod
    def of(cls, *inputs: str, task: str = RUN, **options: Any) -> Job:
        """Build a job from options by name. Raises UsageError, with a suggestion, for an unknown one."""
        if task not in ALL_TASKS:
            raise UsageError(f"unknown task {task!r}", hint=f"one of {', '.join(ALL_TASKS)}")
        groups: dict[str, dict[str, Any]] = {}
        homes = {spec.name: group for group, spec in declared_options()}
        if task == EMBED:
            options = {"output_field": _VECTOR_FIELD, **options}
        for name, value in options.items():
            if name not in homes:
                raise UsageError(f"unknown option {name!r}", hint=suggestion(name, homes))
            groups.setdefault(homes[name], {})[name] = checked(_SPECS[name], value)
        built = {group: _GROUPS[group](**values) for group, values in groups.items()}
        return cls(task=task, inputs=tuple(inputs), **built)

    def options(self) -> dict[str, Any]:
        """Every option that differs from its default, by name: the inverse of `of`."""
        found = {}
        for group, spec in declared_options():
            value = getattr(getattr(self, group), spec.name)
            default = _VECTOR_FIELD if self.task == EMBED and spec.name == "output_field" else spec.default
            if value != default:
                found[spec.name] = [asdict(part) for part in value] if spec.name == "endpoints" else value
        return found


_GROUPS: Mapping[str, type] = {
    spec.name: type(spec.default) for spec in fields(Job) if spec.name not in {"task", "inputs"}
}


def declared_options() -> Iterator[tuple[str, Field[Any]]]:
    """Each option with the name of its group in Job, in the order of declaration."""
    for group, declaration in _GROUPS.items():
        for spec in fields(declaration):
            yield group, spec


_SPECS: Mapping[str, Field[Any]] = {spec.name: spec for _, spec in declared_options()}
