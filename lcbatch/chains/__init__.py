"""Chains: what turns a row into an output. `load_chain` builds the one that the options ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lcbatch.chains.embed import EmbedChain
from lcbatch.chains.prompt import PromptChain, RequestChain
from lcbatch.chains.schemas import AnswerSchema, load_schema
from lcbatch.chains.structured import StructuredChain
from lcbatch.chains.summarize import STUFF, Reading, SummarizeChain
from lcbatch.chains.template import Template, parse_template
from lcbatch.chains.wording import Wording
from lcbatch.errors import ConfigError, InputMissing, UsageError
from lcbatch.job import EMBED, SUMMARIZE, ChainOptions
from lcbatch.ports import Call, Chain
from lcbatch.records import Json
from lcbatch.smallfiles import TooLarge, read_small


@dataclass(frozen=True, slots=True)
class Templates:
    """The user's own templates, and the schema of the answers, read and parsed."""

    prompt: Template | None
    system: Template | None
    map_prompt: Template | None = None
    reduce_prompt: Template | None = None
    schema: AnswerSchema | None = None

    @property
    def any_own(self) -> bool:
        """Whether the user gave one."""
        return any((self.prompt, self.system, self.map_prompt, self.reduce_prompt))


def load_templates(options: ChainOptions) -> Templates:
    """Read what -p, --system, --schema and the like give.

    Raises InputMissing for a file that is not there, ConfigError for one that is no UTF-8 and for a prompt of parts that has no
    place for the part, and both ConfigError and UsageError for a schema.
    """
    return Templates(
        _template(options.prompt, "-p"),
        _template(options.system, "--system"),
        _of_parts(options.map_prompt, "--map-prompt", "the part goes in"),
        _of_parts(options.reduce_prompt, "--reduce-prompt", "the answers to the parts go in"),
        schema_of(options),
    )


def schema_of(options: ChainOptions) -> AnswerSchema | None:
    """The schema that --schema gives, None without one. Raises UsageError, ConfigError, InputMissing."""
    if options.schema is None:
        return None
    return load_schema(options.schema, app_dir=options.app_dir, version=options.chain_version)


def load_chain(
    task: str,
    options: ChainOptions,
    templates: Templates,
    call: Call,
    *,
    model_identity: Mapping[str, Json],
    document_alone: bool,
    row_models: bool,
) -> Chain:
    """The built-in chain for a task over one model's call stack. A user's own chain comes from `custom.load_custom`."""
    prompt, system = templates.prompt, templates.system
    if task == SUMMARIZE:
        return summarizing(options, templates, call, Reading(alone=document_alone), model_identity)
    if task == EMBED:
        return EmbedChain(call, prompt, model_identity)
    asking: PromptChain | RequestChain
    if prompt is None:
        asking = RequestChain(call, system, model_identity, row_models)
    else:
        asking = PromptChain(call, prompt, system, model_identity)
    if templates.schema is None:
        return asking
    return StructuredChain(asking, call, templates.schema, options.parse_retries)


def summarizing(
    options: ChainOptions, templates: Templates, call: Call, reading: Reading, model_identity: Mapping[str, Json]
) -> SummarizeChain:
    """The chain of `summarize`.

    Raises UsageError where the context leaves no room for a document, and for prompts that would never be used; ConfigError for
    one that has no place for the document.
    """
    given = (("--map-prompt", templates.map_prompt), ("--reduce-prompt", templates.reduce_prompt))
    unused = next((flag for flag, template in given if template is not None), None)
    if reading.strategy == STUFF and unused is not None:
        raise UsageError(
            f"{unused} is for documents in parts, and --strategy stuff sends them whole", hint="leave out one"
        )
    own = [template.names for template in (templates.prompt, templates.system) if template is not None]
    if templates.prompt is not None and not any("text" in names for names in own):
        raise ConfigError("-p has no {text}", hint="{text} is where the document goes in")
    wording = Wording(
        words=options.words,
        language=options.language,
        focus=options.focus,
        prompt=templates.prompt,
        system=templates.system,
        map_prompt=templates.map_prompt,
        reduce_prompt=templates.reduce_prompt,
    )
    chain = SummarizeChain(call=call, wording=wording, reading=reading, model_identity=model_identity)
    if not reading.alone and not chain.has_room():
        raise UsageError(
            f"a context of {reading.context.tokens} tokens leaves no room for a document beside the prompt and its answer",
            hint="give a larger --context-tokens, fewer --words or a smaller --max-output-tokens",
        )
    return chain


def _of_parts(text: str | None, flag: str, what: str) -> Template | None:
    template = _template(text, flag)
    if template is not None and "text" not in template.names:
        raise ConfigError(f"{flag} has no {{text}}", hint=f"{{text}} is where {what}")
    return template


def _template(text: str | None, flag: str) -> Template | None:
    """A template given as it is, or in a file after `@`. Raises InputMissing for a file that is not there, ConfigError."""
    if text is None:
        return None
    return parse_template(_file_text(text[1:], flag) if text.startswith("@") else text)


def _file_text(path: str, flag: str) -> str:
    try:
        text = read_small(path).decode("utf-8-sig")
    except OSError as error:
        what = f"cannot read the template {path}: {error.strerror}"
        raise InputMissing(what, hint=f"a file after @ is looked for from {Path.cwd()} on") from error
    except TooLarge as error:
        raise ConfigError(f"{flag} @{path}: {error}", hint="name the file of a prompt") from error
    except UnicodeDecodeError as error:
        raise _no_text(path, flag, f"its byte {error.start + 1} is no UTF-8") from error
    if "\0" in text:
        raise _no_text(path, flag, "it has NUL characters, as UTF-16 read as UTF-8 has")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _no_text(path: str, flag: str, why: str) -> ConfigError:
    return ConfigError(f"{flag} @{path}: {why}", hint="save the template as UTF-8")
