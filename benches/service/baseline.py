"""What both Python services share: the API's shapes, its checks, the store of pictures. Only the queue differs.

This is the service a caller would write with FastAPI today, and it is meant to be a good one: uvloop and httptools,
pydantic's compiled validation straight from the body, orjson out, connections kept, nothing logged per request.
It does the work that Kinora does for a submit and a poll: find the key by its SHA-256, validate the same fields,
decode the picture that came inline and store it under its hash, synced, when it is new, and answer 200 only when
the request is on disk. It makes no clips.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import time
import uuid
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Literal, Protocol

import orjson
from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from PIL import Image
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

MODEL = "Kling-Image2Video-V2.1-Standard"
BASES = ("/api/v1/ie/requestqueue/apikey", "/api/v1/apikey", "/api/v1/ie/requestqueue")
PICTURE_LIMIT_BYTES = 10 * 1024 * 1024
SIDE_MIN_PX = 300
RATIO_MAX = 2.5
Image.MAX_IMAGE_PIXELS = 50_000_000


class Payload(BaseModel):
    """The payload's fields with their limits; unknown ones are ignored."""

    image: str = Field(min_length=1)
    prompt: str = Field("", max_length=2500)
    negative_prompt: str = Field("", max_length=2500)
    duration: Annotated[Literal["5", "10"], BeforeValidator(lambda v: str(v) if type(v) is int else v)] = "5"
    cfg_scale: float = Field(0.5, ge=0, le=1)
    seed: int | None = None


class Submit(BaseModel):
    model: str
    payload: Payload


class Queue(Protocol):
    """Where requests are kept. `put` returns once the request would survive a power cut."""

    async def start(self) -> None: ...
    async def put(self, request_id: str, org: str, record: bytes) -> None: ...
    async def get(self, request_id: str, org: str) -> bytes | None: ...


class Keys:
    """API keys by the SHA-256 of the whole key, as a table of keys would be cached."""

    def __init__(self, key: str, org: str, user: str) -> None:
        self._owners = {hashlib.sha256(key.encode()).digest(): (org, user)}

    def owner(self, request: Request) -> tuple[str, str]:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        owner = self._owners.get(hashlib.sha256(key.encode()).digest()) if scheme.lower() == "bearer" else None
        if owner is None:
            raise HTTPException(401, "an API key is needed", {"WWW-Authenticate": "Bearer"})
        return owner


class Pictures:
    """Pictures by the hash of their bytes; each is decoded, written and synced once, and known from then on."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._known: set[str] = set()

    def keep(self, encoded: str) -> str:
        """Checks an inline picture and returns the name it is stored under."""
        try:
            body = base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise HTTPException(400, f"image: not Base64: {error}") from error
        name = hashlib.sha256(body).hexdigest()
        if name not in self._known:
            if not os.path.exists(self._folder / name):
                self._check(body)
                self._write(name, body)
            self._known.add(name)
        return name

    @staticmethod
    def _check(body: bytes) -> None:
        if len(body) > PICTURE_LIMIT_BYTES:
            raise HTTPException(400, "image: over 10 MB")
        try:
            with Image.open(io.BytesIO(body), formats=("JPEG", "PNG")) as picture:
                width, height = picture.size
                if min(width, height) < SIDE_MIN_PX or max(width, height) > RATIO_MAX * min(width, height):
                    raise HTTPException(400, f"image: {width}x{height} is outside the limits")
                picture.load()
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise HTTPException(400, f"image: cannot be decoded: {error}") from error

    def _write(self, name: str, body: bytes) -> None:
        staged = self._folder / f"{name}.{uuid.uuid4().hex}"
        with staged.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        staged.rename(self._folder / name)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def json_answer(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


def application(queue: Queue) -> FastAPI:
    """The service around one queue. Its settings come from the environment, since uvicorn starts several processes."""
    keys = Keys(os.environ["BASELINE_KEY"], "bench", "bench")
    pictures = Pictures(Path(os.environ["BASELINE_DIR"]) / "pictures")
    router = APIRouter()

    @router.post("/requests")
    async def submit(request: Request) -> Response:
        org, user = keys.owner(request)
        try:
            wanted = Submit.model_validate_json(await request.body())
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise HTTPException(400, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        if wanted.model.lower() != MODEL.lower():
            raise HTTPException(404, f"no model {wanted.model}")
        payload = wanted.payload.model_dump()
        payload["image"] = f"{request.base_url}media/{pictures.keep(wanted.payload.image)}"
        now, request_id = int(time.time()), str(uuid.uuid4())
        record = {
            "request_id": request_id, "model": MODEL, "status": "queued",
            "created_at": now, "updated_at": now, "queued_at": now,
        }  # fmt: skip
        whole = {
            **record, "org_id": org, "user_id": user, "is_public": False,
            "payload": payload, "outcome": None, "qworker_id": "",
        }  # fmt: skip
        await queue.put(request_id, org, orjson.dumps(whole))
        return json_answer(orjson.dumps(record))

    @router.get("/requests/{request_id}")
    async def status(request_id: str, request: Request) -> Response:
        org, _ = keys.owner(request)
        record = await queue.get(request_id, org)
        if record is None:
            raise HTTPException(404, f"no request {request_id}")
        return json_answer(record)

    @asynccontextmanager
    async def lifespan(_: FastAPI):
        await queue.start()
        yield

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None)
    for base in BASES:
        app.include_router(router, prefix=base)

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        answer = json_answer(orjson.dumps({"error": error.detail}), error.status_code)
        answer.headers.update(error.headers or {})
        return answer

    @app.get("/healthz")
    async def healthy() -> Response:
        return json_answer(b"{}")

    return app
