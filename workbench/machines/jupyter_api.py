"""The REST side of a Jupyter Server or Kernel Gateway: is it there, may we in, which kernels live.

One ``requests`` call a question, without a session: no cookie replaces the token, no ``.netrc`` overrides
it. The token travels in the ``Authorization`` header only (``token X``, which servers, gateways and hubs
all take), never in a URL, where servers would log it. What goes wrong is either `Cut` (try again) or one
``WorkbenchError`` that says what to do.
"""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from workbench.errors import WorkbenchError
from workbench.machines.config import JupyterEntry

OLDEST_SERVER = 2  # major version; the same number for jupyter-server and kernel-gateway
CONNECT_S, ANSWER_S = 5.0, 20.0
START_S = 60.0  # a kernel on a busy machine takes its time


class Cut(Exception):
    """The connection broke or did not answer in time: nothing is known, the same question may be asked again."""


class Token:
    """A secret that no ``repr``, log or traceback shows."""

    def __init__(self, text: str | None) -> None:
        self.__text = text

    def header(self) -> dict[str, str]:
        return {} if self.__text is None else {"Authorization": f"token {self.__text}"}

    def __bool__(self) -> bool:
        return self.__text is not None

    def __repr__(self) -> str:
        return "Token(***)" if self else "Token(none)"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a token is never pickled")


class Server:
    """A Jupyter Server or Kernel Gateway. ``at`` is the loopback end of a tunnel, when there is one.

    Raises:
        WorkbenchError: the token would travel unencrypted to another computer; the CA file is unreadable; the
            packages of the extra ``remote`` are not installed.
    """

    def __init__(
        self, name: str, entry: JupyterEntry, token: Token, at: tuple[str, int] | None = None
    ) -> None:
        self.name, self.entry, self._token = name, entry, token
        self.asked = f"connect to the machine {name!r}"
        if missing := [name for name in ("requests", "websocket") if importlib.util.find_spec(name) is None]:
            found = f"{' and '.join(missing)} cannot be imported"
            raise WorkbenchError(self.asked, found, "pip install -e '.[remote]'")
        parts = urlsplit(entry.url)
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.tls = parts.scheme == "https"
        place = f"{at[0]}:{at[1]}" if at is not None else parts.netloc
        self.base = f"{parts.scheme}://{place}{parts.path}"
        self._at = at or (self.host, self.port)
        if token and not (self.tls or at is not None or entry.plain_http or is_loopback(self.host)):
            raise WorkbenchError(
                self.asked,
                f"{entry.url} is plain HTTP, and the token would cross the network for everybody to read",
                'Use https, or tunnel = "user@host", or plain_http = true on a network you trust',
            )
        self._tls_context()  # what is wrong with the CA file is said before anything is sent

    def _tls_context(self) -> ssl.SSLContext | None:
        """A new one each time: urllib3 changes the one it gets, the check of the host's name included."""
        if not self.tls:
            return None
        ca = Path(self.entry.ca).expanduser() if self.entry.ca else None
        try:
            return ssl.create_default_context(cafile=ca)
        except (OSError, ssl.SSLError) as error:
            found = f"the CA file {ca} cannot be used: {_reason(error)}"
            raise WorkbenchError(self.asked, found, "Give ca the path of a PEM file") from None

    # -- questions ---------------------------------------------------------------------------------------

    def knock(self) -> str:
        """The server's version, after checking that it is a Jupyter server, new enough, and lets us in.

        Raises:
            Cut: it does not answer at all.
            WorkbenchError: it does, and something is wrong.
        """
        status, answer = self._ask("GET", "api")
        version = answer.get("version") if isinstance(answer, dict) else None
        if status in (401, 403):
            raise self._refused(status)
        if not isinstance(version, str):
            found = f"{self.entry.url} answers, but not as a Jupyter server does (HTTP {status} for /api)"
            todo = "Correct url: it ends where /api begins, on a hub with /user/NAME"
            raise WorkbenchError(self.asked, found, todo)
        major = re.match(r"\d+", version)
        if major is None or int(major.group()) < OLDEST_SERVER:
            found = f"the server is Jupyter {version}, and {OLDEST_SERVER}.0 is the oldest that is supported"
            raise WorkbenchError(self.asked, found, "There: pip install -U jupyter-server")
        # /api is open to everybody; this asks for the token (a gateway lists its kernels to nobody)
        status, answer = self._ask("GET", "api/kernelspecs")
        self._good(status, answer, "list kernel specifications")
        return version

    def kernel_ids(self) -> list[str]:
        """Ids of the kernels that live there; empty where the server does not list them (gateways)."""
        status, answer = self._ask("GET", "api/kernels")
        return [model["id"] for model in answer] if status == 200 and isinstance(answer, list) else []

    def kernel(self, kernel_id: str) -> dict[str, Any] | None:
        """The kernel's model, None when there is none of this id."""
        status, answer = self._ask("GET", f"api/kernels/{quote(kernel_id, safe='')}")
        return None if status in (404, 400) else self._good(status, answer, "look a kernel up")

    def start_kernel(self, label: str) -> str:
        """Id of the kernel of the session ``label``, started unless an earlier, cut request did that."""
        body = {"path": label, "name": label, "type": "console", "kernel": {"name": self.entry.kernel_name}}
        status, answer = self._ask("POST", "api/sessions", body, START_S)
        if status in (404, 501) or (status >= 400 and "No such kernel" in str(answer)):
            found = f"the server has no kernel {self.entry.kernel_name!r}"
            if known := self._kernel_names():
                found += f", it has {', '.join(known)}"
            raise WorkbenchError(
                self.asked, found, "Correct kernel_name, or there: python -m ipykernel install"
            )
        return str(self._good(status, answer, "start a kernel")["kernel"]["id"])

    def stop_kernel(self, kernel_id: str) -> None:
        self._ask("DELETE", f"api/kernels/{quote(kernel_id, safe='')}")

    def interrupt(self, kernel_id: str) -> None:
        self._ask("POST", f"api/kernels/{quote(kernel_id, safe='')}/interrupt", {})

    def _kernel_names(self) -> list[str]:
        status, answer = self._ask("GET", "api/kernelspecs")
        specs = answer.get("kernelspecs") if isinstance(answer, dict) else None
        return sorted(specs) if status == 200 and isinstance(specs, dict) else []

    # -- for the websocket -------------------------------------------------------------------------------

    def websocket(self, kernel_id: str, session: str, timeout_s: float) -> Any:
        """An open ``websocket.WebSocket`` to the kernel's channels, as JSON text messages.

        Raises:
            Cut, WorkbenchError
        """
        import websocket

        url = re.sub("^http", "ws", self.base) + f"/api/kernels/{kernel_id}/channels?session_id={session}"
        context = self._tls_context()
        options = {} if context is None else {"context": context, "server_hostname": self.host}
        try:
            return websocket.create_connection(
                url, timeout=timeout_s, header=self._token.header(), sslopt=options, redirect_limit=0
            )
        except websocket.WebSocketBadStatusException as error:
            status = error.status_code
        except (websocket.WebSocketException, OSError, EOFError) as error:
            # certificates and wrong ports were told apart by `knock`, which every connection begins with
            raise Cut(_reason(error)) from None
        if status in (401, 403):
            raise self._refused(status)
        # 404: the kernel went away in between, and the caller looks it up again; 5xx: a proxy without its server
        raise Cut(f"HTTP {status} for the kernel's channels")

    # -- one request -------------------------------------------------------------------------------------

    def _ask(self, method: str, path: str, body: Any = None, timeout_s: float = ANSWER_S) -> tuple[int, Any]:
        """HTTP status and answer (parsed when it is JSON)."""
        import requests
        from requests.adapters import HTTPAdapter

        header, context = self._token.header(), self._tls_context()

        def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
            request.headers.update(header)
            return request

        class Adapter(HTTPAdapter):
            """Our TLS context; behind a tunnel the certificate is still that of the server's own name."""

            def init_poolmanager(adapter, *args: Any, **options: Any) -> None:
                if context is not None:
                    options |= {"ssl_context": context, "server_hostname": self.host}
                super().init_poolmanager(*args, **options)

        with requests.Session() as session:
            session.mount("https://", Adapter())
            # the CA file is part of the context; requests would otherwise add its own bundle to it
            verify = str(Path(self.entry.ca).expanduser()) if self.entry.ca else True
            try:
                answer = session.request(
                    method,
                    f"{self.base}/{path}",
                    json=body,
                    auth=authorize,
                    timeout=(CONNECT_S, timeout_s),
                    allow_redirects=False,
                    verify=verify,
                )
            except requests.exceptions.RequestException as error:
                raise self._broken(error) from None
        if 300 <= answer.status_code < 400:
            raise self._redirected(answer.headers.get("Location", ""))
        if answer.status_code in (502, 503, 504):
            raise Cut(f"HTTP {answer.status_code}")
        with contextlib.suppress(ValueError):
            return answer.status_code, answer.json() if answer.content else None
        return answer.status_code, answer.text[:200]

    def _good(self, status: int, answer: Any, what: str) -> Any:
        if status in (401, 403):
            raise self._refused(status)
        if status >= 400 or answer is None:
            said = answer.get("message") if isinstance(answer, dict) else answer
            found = f"the server answers HTTP {status} when asked to {what}" + (f" ({said})" if said else "")
            raise WorkbenchError(self.asked, found, "Look into the server's log")
        return answer

    # -- what went wrong ---------------------------------------------------------------------------------

    def _refused(self, status: int) -> WorkbenchError:
        if not self._token:
            found, todo = (
                f"the server wants a token (HTTP {status})",
                "Add token_env or keyring to the machines file",
            )
            return WorkbenchError(self.asked, found, todo)
        source = self.entry.token_env or self.entry.keyring
        found = f"the server refuses the token of {source} (HTTP {status}): it is wrong or has expired"
        todo = (
            "Get the server's token (there: jupyter server list; on a hub: Token) and put it into that place"
        )
        return WorkbenchError(self.asked, found, todo)

    def _redirected(self, location: str) -> WorkbenchError:
        target = urlsplit(location)
        if "login" in target.path:
            return self._refused(302)
        if target.scheme == "https" and not self.tls:
            found, todo = (
                f"{self.entry.url} is plain HTTP and the server expects TLS",
                "Write https:// in url",
            )
            return WorkbenchError(self.asked, found, todo)
        found = (
            f"{self.entry.url} sends on to another address ({target.scheme}://{target.netloc}{target.path})"
        )
        return WorkbenchError(self.asked, found, "Write the server's own address in url")

    def _broken(self, error: Exception) -> Exception:
        """`Cut`, or an error where the same request can never work."""
        text = _reason(error)
        if "CERTIFICATE_VERIFY_FAILED" in text:
            if "mismatch" in text or "not valid for" in text:
                found = f"the server's certificate is not for the name {self.host}"
                return WorkbenchError(self.asked, found, "Write the name of the certificate in url")
            if "expired" in text:
                return WorkbenchError(
                    self.asked, "the server's certificate has expired", "Renew it on the server"
                )
            found = "the server's certificate is from a CA that this computer does not know"
            todo = 'Write ca = "FILE" (PEM, from the server\'s administrator) in the machines file'
            if self.entry.ca:
                found = f"the server's certificate is not from the CA in {self.entry.ca}"
                todo = "Give ca the file of the CA that signed it"
            return WorkbenchError(self.asked, found, todo)
        # Tornado's servers do not refuse TLS, they wait for the end of what they take for a request
        late = self.tls and "timed out" in text
        wrong = "WRONG_VERSION_NUMBER" in text or "record layer failure" in text
        if wrong or (late and self._speaks_plainly()):
            found = f"{self.entry.url} asks for TLS and the server speaks plain HTTP"
            todo = "Start the server with a certificate, or write http:// in url (loopback or tunnel)"
            return WorkbenchError(self.asked, found, todo)
        if not self.tls and self._speaks_tls():
            found, todo = (
                f"{self.entry.url} is plain HTTP and the server expects TLS",
                "Write https:// in url",
            )
            return WorkbenchError(self.asked, found, todo)
        return Cut(text)

    def _speaks_tls(self) -> bool:
        """Whether a TLS greeting is answered; asked only when a plain request was not. Nothing secret is sent."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with (
                socket.create_connection(self._at, timeout=2) as plain,
                context.wrap_socket(plain, server_hostname=self.host),
            ):
                return True
        except OSError:
            return False

    def _speaks_plainly(self) -> bool:
        """Whether a plain request, without the token, is answered; asked only when a TLS greeting was not."""
        try:
            with socket.create_connection(self._at, timeout=2) as plain:
                plain.sendall(f"GET / HTTP/1.1\r\nHost: {self.host}\r\nConnection: close\r\n\r\n".encode())
                return plain.recv(5) == b"HTTP/"
        except OSError:
            return False


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        inner = next((x for x in error.args if isinstance(x, BaseException)), None)
        error = inner or getattr(error, "reason", None) or error.__cause__ or error.__context__
        if not isinstance(error, BaseException):
            return


def _reason(error: BaseException) -> str:
    """The innermost cause in words: libraries wrap 'Connection refused' three times over."""
    last = list(_causes(error))[-1]
    if isinstance(last, ssl.SSLError):
        return str(last)
    if isinstance(last, OSError) and last.strerror:
        return last.strerror
    return " ".join(str(last).split()) or type(last).__name__
