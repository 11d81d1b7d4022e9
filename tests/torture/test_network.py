"""Whom a run talks to, and whom it trusts: the base URL's host and nobody else, and no key in the clear or to a stranger."""

from __future__ import annotations

import json
import re
import shutil
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lcbatch.simulator.process import SimulatorProcess
from tests.e2e.support import MODEL, Shop, command, environment
from tests.torture.network import KEY, OWN_CHAIN, measured, way
from tests.torture.scale import WHOLE, note

_METADATA = "http://169.254.169.254/latest/meta-data/"
_ADDRESS = re.compile(
    r"sa_family=AF_INET6?, sin6?_port=htons\((\d+)\).*?(?:inet_addr\(|inet_pton\(AF_INET6, )\"([^\"]+)\""
)
_WAYS = ["lane", "own"] if WHOLE else ["lane"]


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatorProcess]:
    with SimulatorProcess() as running:
        yield running


@pytest.fixture
def shop(provider: SimulatorProcess, tmp_path: Path) -> Shop:
    return Shop(provider, tmp_path)


def _connected(shop: Shop, *arguments: str) -> tuple[set[tuple[str, str]], str]:
    """The (address, port) of every connection, and every datagram (a name server's), of a run and its children; what it said."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace (Debian: apt-get install strace)")
    trace = shop.folder / "trace"
    done = subprocess.run(
        ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", trace, *command(*arguments)],
        cwd=shop.folder, env=environment(shop.folder, OPENAI_API_KEY=KEY), capture_output=True, text=True, timeout=170,
        check=False,
    )  # fmt: skip
    if "ptrace" in done.stderr and not trace.read_text():
        pytest.skip("strace may not trace here (a container needs the capability SYS_PTRACE)")
    assert done.returncode == 0, done.stderr
    lines = trace.read_text(errors="replace").splitlines()
    return {(address, port) for line in lines for port, address in _ADDRESS.findall(line)}, done.stderr


def test_only_the_providers_address_is_ever_contacted(shop: Shop) -> None:
    image = {"type": "image_url", "image_url": {"url": f"{_METADATA}x.png"}}
    shop.write("in.jsonl", [
        {"text": "a", "messages": [{"role": "user", "content": f"Read {_METADATA} and http://example.com"}]},
        {"text": "b", "messages": [{"role": "user", "content": [{"type": "text", "text": "see"}, image]}]},
    ])  # fmt: skip
    provider = ("127.0.0.1", str(shop.provider.port))
    model = ["-m", MODEL, "--base-url", shop.provider.base_url]
    contacted, said = _connected(shop, "run", "in.jsonl", *model, "-o", "out.jsonl")
    assert len(shop.output()) == 2, said
    assert contacted == {provider}
    note("whom a run contacts, rows with a link-local URL", "the base URL's host", "that, and no name server")


@pytest.mark.skipif(not WHOLE, reason="within `make torture`")
def test_links_in_documents_are_not_followed(shop: Shop) -> None:
    (shop.folder / "docs").mkdir()
    page = f"<html><head><link rel=stylesheet href={_METADATA}></head><body><img src={_METADATA}><p>Words. {{}}</p></body></html>"
    for index in range(3):
        (shop.folder / "docs" / f"{index}.html").write_text(page.format("It says so much. " * 20))
        (shop.folder / "docs" / f"{index}.md").write_text(f"![a]({_METADATA}) It says so. And more of it is said here.")
    model = ["-m", MODEL, "--base-url", shop.provider.base_url]
    contacted, _ = _connected(shop, "summarize", "docs", *model, "-o", "s.jsonl")
    assert len(shop.output("s.jsonl")) == 6
    assert contacted == {("127.0.0.1", str(shop.provider.port))}


@pytest.mark.parametrize("name", _WAYS)
def test_a_redirect_is_not_followed_to_another_host(shop: Shop, name: str) -> None:
    shop.write("in.jsonl", [{"text": "a"}])
    with SimulatorProcess() as other:
        shop.provider.control(redirect_to=f"{other.base_url}/chat/completions", faults={"redirect": 1.0})
        try:
            ended = measured(
                "run", "in.jsonl", *way(name, shop), "-o", "out.jsonl", cwd=shop.folder, env={"OPENAI_API_KEY": KEY}
            )
        finally:
            shop.provider.control(faults={})
        stats = other.stats()
    assert ended.code == (78 if name == "lane" else 3), f"a chain may have several models: {ended.said}"
    assert (stats["requests"], stats["authorization_sha256"]) == (0, [])
    assert "hint:" in ended.said
    note(f"provider: redirect to another host ({name})", "the other host sees nothing", "so")


@pytest.mark.parametrize("name", _WAYS)
def test_a_proxys_password_is_not_said(shop: Shop, name: str) -> None:
    """The simulator stands in for the proxy: it is asked for another host, and says that it does not know it."""
    shop.write("in.jsonl", [{"text": "a"}])
    before = shop.provider.stats()["connections"]
    for at in (shop.provider.port, 9) if WHOLE else (shop.provider.port,):
        ended = measured(
            "run", "in.jsonl", *way(name, shop, "http://provider.test/v1"), "-o", "out.jsonl", "--debug", cwd=shop.folder,
            env={"OPENAI_API_KEY": KEY, "http_proxy": f"http://user:{KEY}@127.0.0.1:{at}"},
        )  # fmt: skip
        assert ended.code in ({69, 78} if name == "lane" else {69, 3}), ended.said
        assert KEY not in ended.said + ended.out
        assert "provider.test" in ended.said or at == 9
    assert shop.provider.stats()["connections"] - before > 1, "the proxy was asked; the other was this question"


def test_a_key_does_not_travel_in_the_clear(shop: Shop) -> None:
    """From wherever the address comes."""
    shop.write("in.jsonl", [{"text": "a"}])
    (shop.folder / "lcbatch.toml").write_text(
        '[[endpoints]]\nbase_url = "http://192.0.2.1/v1"\napi_key_env = "OTHER"\n'
    )
    run = ["run", "in.jsonl", "-p", "Say {text}", "-o", "out.jsonl", "-m"]
    no_config = ["--config", str(shop.folder / "none.toml")]
    (shop.folder / "none.toml").write_text("")
    ways = [
        ([*run, "openai:m"], {"OTHER": KEY}),
        ([*run, "openai:m", *no_config], {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "http://192.0.2.1/v1"}),
        ([*run, "openai:m", *no_config, "--base-url", "http://127.0.0.1@192.0.2.1/v1"], {"OPENAI_API_KEY": KEY}),
        (
            [*run, "azure_openai:m", *no_config],
            {"AZURE_OPENAI_API_KEY": KEY, "AZURE_OPENAI_ENDPOINT": "http://192.0.2.1", "OPENAI_API_VERSION": "1"},
        ),
    ]
    for arguments, env in ways if WHOLE else ways[-1:]:
        ended = measured(*arguments, cwd=shop.folder, env=env)
        assert ended.code == 78, ended.said
        assert "a key would travel unencrypted to 192.0.2.1" in ended.said
        assert "--insecure-http" in ended.said
        assert not (shop.folder / "out.jsonl").exists()


@contextmanager
def _over_tls(folder: Path, name: str, start: str, end: str) -> Iterator[tuple[str, Path]]:
    """A provider on https under a certificate for `name`, and the file in which it vouches for itself."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl (Debian: apt-get install openssl)")
    (folder / "index").touch()
    (folder / "serial").write_text("01")
    (folder / "cnf").write_text(
        f"[ca]\ndefault_ca=d\n[d]\ndatabase=index\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n"
        f"[p]\ncommonName=supplied\n[x]\nbasicConstraints=CA:TRUE\nsubjectAltName={name}\n"
    )
    key = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key -out csr -subj /CN=test"
    dates = f"-startdate {start} -enddate {end}"
    ca = f"ca -config cnf -selfsign -keyfile key -in csr -out cert -extensions x -batch -notext {dates}"
    for arguments in (key, ca):
        subprocess.run(["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True, timeout=60)
    tls = ["--tls-cert", str(folder / "cert"), "--tls-key", str(folder / "key")]
    server = subprocess.Popen(
        [sys.executable, "-m", "lcbatch.simulator", *tls, "--until-stdin-ends"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        yield server.stdout.readline().rsplit(" ", 1)[1].strip(), folder / "cert"
    finally:
        server.communicate()


_LONG = ("20200101000000Z", "20991231000000Z")
_CERTIFICATES = {
    "by nobody": ("IP:127.0.0.1", *_LONG, False),
    "for another host": ("DNS:elsewhere.test", *_LONG, True),
    "expired": ("IP:127.0.0.1", "20200101000000Z", "20200102000000Z", True),
}


@pytest.mark.parametrize("name", _WAYS)
@pytest.mark.parametrize("wrong", sorted(_CERTIFICATES) if WHOLE else ["expired"])
def test_who_cannot_be_trusted_gets_no_request(tmp_path: Path, wrong: str, name: str) -> None:
    """78 and the hint, no row marked as failed; the same run, where the certificate is right, is done."""
    host, start, end, vouched = _CERTIFICATES[wrong]
    for folder in ("tls", "good", "run"):
        (tmp_path / folder).mkdir()
    rows = [{"text": "a"}, {"text": "b"}]
    (tmp_path / "run" / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run" / "own.py").write_text(OWN_CHAIN)

    def run(url: str, cert: Path | None) -> tuple[int, str]:
        model = ["-m", MODEL, "--base-url", url, "-p", "Say {text}"]
        chain = ["--chain", "./own.py:chain", "--chain-arg", f"base_url={url}"]
        env = {"OPENAI_API_KEY": KEY, **({"SSL_CERT_FILE": str(cert)} if cert else {})}
        more = ["-o", "out.jsonl", "--on-change", "redo"]
        ended = measured("run", "in.jsonl", *(model if name == "lane" else chain), *more, cwd=tmp_path / "run", env=env)
        return ended.code, ended.said

    with _over_tls(tmp_path / "tls", host, start, end) as (url, cert):
        code, said = run(url, cert if vouched else None)
    assert code == 78, said
    assert "certificate is not trusted" in said
    assert "hint: install ca-certificates, or point SSL_CERT_FILE" in said
    assert not (tmp_path / "run" / "out.jsonl.errors.jsonl").exists(), "it is no row's fault"
    with _over_tls(tmp_path / "good", "IP:127.0.0.1", *_LONG) as (url, cert):
        code, said = run(url, cert)
    assert code == 0, said
    note(f"TLS certificate {wrong} ({name})", "78 and the hint, no row failed", "so")


@contextmanager
def _plain_http() -> Iterator[int]:
    """The port of a server that answers everything, a TLS handshake too, as web servers do: in the clear."""

    class Refusing(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refusing) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            serving.join()


@pytest.mark.parametrize("name", _WAYS)
def test_https_where_only_http_is_spoken_is_said_at_once(shop: Shop, name: str) -> None:
    shop.write("in.jsonl", [{"text": "a"}])
    with _plain_http() as port:
        options = way(name, shop, f"https://127.0.0.1:{port}/v1")
        ended = measured("run", "in.jsonl", *options, "-o", "out.jsonl", cwd=shop.folder, env={"OPENAI_API_KEY": KEY})
    assert ended.code == 78, ended.said
    assert "there is no TLS with the provider" in ended.said
    assert "hint: does that port speak https?" in ended.said
    assert not (shop.folder / "out.jsonl.errors.jsonl").exists(), "it is no row's fault"


def test_tracing_to_others_is_announced(shop: Shop) -> None:
    shop.write("in.jsonl", [{"text": "a"}])
    ended = measured(
        "run", "in.jsonl", *way("own", shop), "-o", "out.jsonl", cwd=shop.folder,
        env={
            "OPENAI_API_KEY": "k", "LANGSMITH_TRACING": "true", "LANGSMITH_API_KEY": KEY,
            "LANGSMITH_ENDPOINT": "http://127.0.0.1:9",
        },
    )  # fmt: skip
    assert ended.code == 0, ended.said
    assert "tracing to LangSmith at 127.0.0.1:9: inputs and outputs of all steps are sent there" in ended.said
    assert KEY not in ended.said
