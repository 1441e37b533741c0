"""What the server answers before gradio does: to requests for what is not ours, too large, or no calls at all."""

import re

from fastapi import Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from gradio.route_utils import FnIndexInferError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

MOST_BODY = 32 * 2**20  # bytes of a call; files are uploaded apart, and have a limit of their own
UPLOAD = re.compile(r"/upload/?$")
CALL = re.compile(r"/(?:call/v2|call|run|api)/(?P<name>[^/]+)/?$|/queue/join/?$")
NO_CALL = 'A call is a JSON object with its arguments as a list, such as {"data": [1, "two"]}.'
NO_ENDPOINT = "There is no such endpoint: /gradio_api/info lists them all."


def app_options() -> dict:
    """What gradio passes on to FastAPI."""
    return {
        "middleware": [Middleware(OnlyOwnFiles), Middleware(BoundedCalls)],
        "exception_handlers": {
            RequestValidationError: _no_call,
            HTTPException: _unreadable,
            FnIndexInferError: _no_endpoint,
            KeyError: _no_endpoint,
            TypeError: _wrong_names,
        },
    }


class OnlyOwnFiles:
    """ASGI middleware: gradio would also fetch any public address named after ``file=`` and pass it on."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if re.search(r"/(file|proxy)[=/]+https?:", scope.get("path", ""), re.IGNORECASE):
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body"})
        else:
            await self.app(scope, receive, send)


class BoundedCalls:
    """ASGI middleware: a call is read into memory whole, so it may not be of any size."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or UPLOAD.search(scope["path"]):
            return await self.app(scope, receive, send)
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > MOST_BODY:
            return await _sentence(f"A call may have {MOST_BODY >> 20} MB.", 413)(scope, receive, send)
        left = MOST_BODY

        async def bounded():
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise ValueError("too large")  # FastAPI answers that the body cannot be read
            return message

        return await self.app(scope, bounded, send)


def _sentence(text: str, status: int) -> JSONResponse:
    return JSONResponse({"error": text}, status)


def _no_call(request: Request, reason: Exception) -> JSONResponse:
    return _sentence(NO_CALL if CALL.search(request.url.path) else "The request is not one that is answered here.", 422)


async def _unreadable(request: Request, reason: HTTPException) -> Response:
    if reason.status_code == 400 and CALL.search(request.url.path):
        return _sentence(NO_CALL, 400)
    return await http_exception_handler(request, reason)


def _no_endpoint(request: Request, reason: Exception) -> JSONResponse:
    if not CALL.search(request.url.path):
        raise reason
    return _sentence(NO_ENDPOINT, 404)


def _wrong_names(request: Request, reason: Exception) -> JSONResponse:
    """gradio's sentence on an argument that there is none of, or that is missing."""
    if not CALL.search(request.url.path):
        raise reason
    return _sentence(str(reason).partition(" Please click")[0].rstrip(".") + ".", 422)
