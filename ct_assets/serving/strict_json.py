"""JSON of a request's body: what cannot be read, or says two things at once, is refused in words."""

import json
from collections.abc import Callable
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

_EXPECTED = "expected JSON in UTF-8, neither compressed nor in another encoding"


class StrictRoute(APIRoute):
    """A route that reads its body as strict JSON; FastAPI itself says no more than that it could not."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """What answers a request."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            response: Response = await handler(_StrictRequest(request.scope, request.receive))
            return response

        return answer


class _StrictRequest(Request):
    async def json(self) -> Any:
        """The body; not JSON at all is told by FastAPI, with the place."""
        body = await self.body()
        try:
            return json.loads(body, object_pairs_hook=unique)
        except json.JSONDecodeError:
            raise
        except RepeatedKeyError as error:
            problem = f"the body has {error}"
        except UnicodeDecodeError as error:
            problem = f"the body is no text in UTF-8 ({error.reason} at byte {error.start}); {_EXPECTED}"
        except RecursionError:
            problem = "the body is nested too deeply; expected instances, each a flat object"
        except ValueError as error:
            problem = f"the body has a number that is too long ({str(error).partition(';')[0]}); expected fewer digits"
        raise HTTPException(400, problem)


class RepeatedKeyError(ValueError):
    """A JSON object that has a key twice: which of the values is meant, nobody can tell."""


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, for `object_pairs_hook`.

    Raises:
        RepeatedKeyError: A key comes twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RepeatedKeyError(f"the key {twice!a:.60} twice in one object; expected each key once")
    return found
