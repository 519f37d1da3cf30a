"""A live optuna-dashboard of a run, from its files alone: no database is written, and the driver is not involved."""

import threading
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.storages import InMemoryStorage
from optuna_dashboard import wsgi

from sweep.search.study import study_of
from trainable.errors import RequestError

REFRESH_SECONDS: Final = 2.0  # assumed
HOST: Final = "127.0.0.1"  # this machine only: the page asks for no password


class RecordStorage(InMemoryStorage):
    """The records as of the last `refresh`. Whatever a visitor changes in the dashboard is not kept."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self.refresh()

    def refresh(self) -> None:
        """Read the records again. A study is a pure function of them, so its ids stay the same."""
        fresh = study_of(self._folder)._storage
        assert isinstance(fresh, InMemoryStorage)
        with self._lock:
            self.__dict__.update({k: v for k, v in vars(fresh).items() if k != "_lock"})


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Print no line for each request."""


class Dashboard:
    """Serves the run in `folder` at `address` until it is closed; reachable only from this machine."""

    def __init__(self, folder: Path, port: int) -> None:
        self._storage = RecordStorage(folder)
        try:
            self._server = make_server(HOST, port, wsgi(self._storage), _Server, _Quiet)
        except OSError as error:
            raise RequestError(
                f"--port must be free on {HOST}, but {port} is not ({error.strerror}); use another"
            ) from None
        self._closed = threading.Event()

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self._server.server_port}"

    def serve(self) -> None:
        """Serve until Ctrl-C, or until another thread calls `close`."""
        threading.Thread(target=self._follow, daemon=True, name="records").start()
        try:
            self._server.serve_forever(poll_interval=REFRESH_SECONDS)
        finally:
            self._closed.set()
            self._server.server_close()

    def _follow(self) -> None:
        while not self._closed.wait(REFRESH_SECONDS):
            try:
                self._storage.refresh()
            except (RequestError, OSError):  # what is shown stays as it was
                continue

    def close(self) -> None:
        self._server.shutdown()
