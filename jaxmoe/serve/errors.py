"""Errors as OpenAI's API has them."""

from typing import Any

INVALID = "invalid_request_error"


class RequestError(Exception):
    """What a client is told: a status, and OpenAI's object.

    status: of HTTP. kind: the object's `type`. param: the field at fault. code: for
    programs to compare. retry_after: seconds after which another attempt may succeed.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ):
        """Take the message, for people."""
        super().__init__(message)
        self.status, self.kind, self.param, self.code = status, kind, param, code
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The JSON object."""
        fields = {"type": self.kind, "param": self.param, "code": self.code}
        return {"error": {"message": str(self), **fields}}

    def headers(self) -> dict[str, str]:
        """Of the reply."""
        found = {}
        if self.retry_after is not None:
            found["Retry-After"] = str(self.retry_after)
        if self.status == 401:
            found["WWW-Authenticate"] = "Bearer"
        return found


def server_error(message: str, *, status: int = 500, code: str) -> RequestError:
    """A fault that is not the client's."""
    retry = 1 if status == 503 else None
    return RequestError(
        message, status=status, kind="server_error", code=code, retry_after=retry
    )


def server_fault() -> RequestError:
    """What no code foresaw."""
    return server_error(
        "this request met a fault of the server; its log says which",
        code="internal_error",
    )


def shutting_down() -> RequestError:
    """Of requests that come, or are still under way, when the server stops."""
    return server_error(
        "the server is shutting down, so this answer is missing or incomplete; ask "
        "again in a while",
        status=503,
        code="server_shutting_down",
    )
