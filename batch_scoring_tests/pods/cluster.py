"""A stand-in for the Kubernetes Jobs API, as called by dagster-k8s and `k8s_step_handler.py`, on loopback.

Each Job's container is a process with the pod's environment and nothing else of this machine, forked from one that has
the libraries imported: home, working folder and DAGSTER_HOME are new and empty, so that no path of one pod exists in
another. At most `slots` of them run at once, the others are Pending. What a cluster does to pods is up to the test:
`trouble`, `kill`.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import yaml

from batch_scoring_tests.forked import Forked

NAMESPACE = "scoring"
GRACE = 5.0
"""Seconds between a deleted pod's SIGTERM and its SIGKILL, whatever its spec says."""
_BIN = Path(sys.executable).parent

Trouble = Literal["Unschedulable", "ImagePullBackOff", "FailedMount", "FailedCreate"]
MESSAGES: dict[Trouble, str] = {
    "Unschedulable": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    "ImagePullBackOff": 'Back-off pulling image "registry.example/nobody:1"',
    "FailedMount": 'MountVolume.SetUp failed for volume "weights": secret "weights" not found',
    "FailedCreate": 'pods "x" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1',
}
"""What Kubernetes says of each."""
Death = Literal["OOMKilled", "Evicted"]


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Pod:
    """A pod of a Job, and its process."""

    job: "Job"
    folder: Path
    name: str = ""
    created: datetime = field(default_factory=_now)
    trouble: Trouble | None = None
    process: "Forked | subprocess.Popen[bytes] | None" = None
    exit_code: int | None = None
    death: Death | None = None
    is_deleted: bool = False
    kill_at: float = float("inf")

    @property
    def phase(self) -> str:
        """As Kubernetes calls it."""
        if self.process is None:
            return "Pending"
        return "Running" if self.exit_code is None else ("Failed" if self.exit_code else "Succeeded")

    @property
    def log(self) -> str:
        """What its process has said."""
        file = self.folder / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    def files(self) -> list[str]:
        """What its process has left in its home, its working folder and its DAGSTER_HOME."""
        places = [self.folder / name for name in ("home", "work", "dagster_home")]
        return sorted(str(file.relative_to(self.folder)) for place in places for file in place.rglob("*"))

    def start(self) -> None:
        """Run the container's args, with its environment alone."""
        container = self.job.container
        homes = {name: self.folder / folder for name, folder in _HOMES.items()}
        for home in [*homes.values(), self.folder / "work"]:
            home.mkdir(parents=True)
        environment = {"PATH": f"{_BIN}:/usr/bin:/bin", "HOSTNAME": self.name, **self.job.environment}
        environment |= {name: str(home) for name, home in homes.items()}
        program, *arguments = container["args"]
        assert program == "dagster", f"{program}: what the image starts is one of its commands"
        self.process = Forked(
            "dagster._cli", arguments, cwd=self.folder / "work", env=environment, output=self.folder / "log"
        )

    def signal(self, number: int) -> None:
        """Send a signal to all its processes."""
        if self.process and self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


_HOMES = {"HOME": "home", "DAGSTER_HOME": "dagster_home"}


@dataclass
class Job:
    """A Job as it was posted, with its pod."""

    manifest: dict[str, Any]
    created: datetime = field(default_factory=_now)
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))
    pod: Pod | None = None
    is_deleted: bool = False
    is_too_late: bool = False
    """Whether its activeDeadlineSeconds are over."""

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.manifest["metadata"]["name"])

    @property
    def container(self) -> dict[str, Any]:
        """Its pod's only container."""
        (container,) = self.manifest["spec"]["template"]["spec"]["containers"]
        return dict(container)

    @property
    def environment(self) -> dict[str, str]:
        """Of its container."""
        return {variable["name"]: variable["value"] for variable in self.container["env"]}

    @property
    def step(self) -> str:
        """The key of its step; empty of a run's own Job."""
        return self.environment.get("DAGSTER_RUN_STEP_KEY", "")


class Cluster:
    """The API with its Jobs; all processes are gone at the end."""

    def __init__(self, folder: Path, slots: int = 3) -> None:
        """`folder`: of the pods. `slots`: pods that run at once; 0: none does."""
        self.jobs: list[Job] = []
        self.slots = slots
        self.trouble: Callable[[Job], Trouble | None] = lambda _: None
        """What keeps the pod of a new Job from starting."""
        self.forbidden: set[str] = set()
        """Resources that the service account may not read: pods, events."""
        self._folder = folder
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._threads = [
            threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True),
            threading.Thread(target=self._run_pods, daemon=True),
        ]
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(kubeconfig(f"http://127.0.0.1:{self._server.server_port}"))

    def __enter__(self) -> "Cluster":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join()
        for pod in self._pods():
            pod.signal(signal.SIGKILL)
            if pod.process:
                pod.process.wait()

    def of_step(self, step: str) -> list[Job]:
        """The Jobs of the steps whose keys end so, also those that are deleted; of runs: of the empty key."""
        return [job for job in self.jobs if (job.step.endswith(step) if step else not job.step)]

    def kill(self, job: Job, death: Death) -> None:
        """End a pod's processes as the kernel or the kubelet does."""
        with self._lock:
            assert job.pod and job.pod.phase == "Running", f"{job.step}: there is no running pod"
            job.pod.death = death
            job.pod.signal(signal.SIGKILL)

    def expire(self, job: Job) -> None:
        """End a Job whose activeDeadlineSeconds are over, as the Job controller does: its pod is deleted."""
        with self._lock:
            job.is_too_late = True
            if job.pod:
                self.delete("pods", job.pod.name)

    def _pods(self) -> list[Pod]:
        return [job.pod for job in self.jobs if job.pod]

    def _run_pods(self) -> None:
        while not self._stopped.wait(0.05):
            with self._lock:
                for pod in self._pods():
                    if pod.process and pod.exit_code is None:
                        if time.monotonic() > pod.kill_at:
                            pod.signal(signal.SIGKILL)
                        code = pod.process.poll()
                        pod.exit_code = code if code is None or code >= 0 else 128 - code
                running = sum(pod.phase == "Running" for pod in self._pods())
                waiting = [p for p in self._pods() if p.phase == "Pending" and not p.trouble and not p.is_deleted]
                for pod in waiting[: max(0, self.slots - running)]:
                    pod.start()

    # what the API does

    def post_job(self, manifest: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Create a Job, and its pod unless that is refused."""
        with self._lock:
            job = Job(manifest)
            if self._job(job.name):
                return _status(409, "AlreadyExists", f'jobs.batch "{job.name}" already exists')
            self.jobs.append(job)
            trouble = self.trouble(job)
            if trouble != "FailedCreate":
                folder = self._folder / f"pod-{len(self.jobs)}"
                folder.mkdir()
                job.pod = Pod(job, folder, f"{job.name}-{uuid.uuid4().hex[:5]}", trouble=trouble)
            return 201, _job_json(job)

    def get(self, kind: str, name: str, part: str, query: dict[str, str]) -> tuple[int, "dict[str, Any] | str"]:
        """Read one object, a part of it, or a list."""
        with self._lock:
            if kind in self.forbidden:
                return _status(403, "Forbidden", f'{kind} is forbidden: User "dagster" cannot list resource "{kind}"')
            if kind == "events":
                return 200, _list(self._events(_selected(query, "fieldSelector")))
            found = {job.name: _job_json(job) for job in self.jobs if not job.is_deleted}
            if kind == "pods":
                found = {pod.name: _pod_json(pod) for pod in self._pods() if not pod.is_deleted}
            if name:
                if name not in found:
                    return _status(404, "NotFound", f'{kind} "{name}" not found')
                pod = next((pod for pod in self._pods() if pod.name == name), None)
                return 200, pod.log if pod and part == "log" else found[name]
            labels, fields = _selected(query, "labelSelector"), _selected(query, "fieldSelector")
            return 200, _list(
                [
                    one
                    for one in found.values()
                    if labels.items() <= one["metadata"]["labels"].items()
                    and fields.get("metadata.name", one["metadata"]["name"]) == one["metadata"]["name"]
                ]
            )

    def delete(self, kind: str, name: str) -> tuple[int, dict[str, Any]]:
        """Delete a Job alone, as its API does if nothing else is said, or a pod."""
        with self._lock:
            if kind == "jobs" and (job := self._job(name)):
                job.is_deleted = True
                return 200, _job_json(job)
            pod = next((pod for pod in self._pods() if pod.name == name and not pod.is_deleted), None)
            if kind == "pods" and pod:
                pod.is_deleted = True
                pod.kill_at = time.monotonic() + GRACE
                pod.signal(signal.SIGTERM)
                return 200, _pod_json(pod)
            return _status(404, "NotFound", f'{kind} "{name}" not found')

    def _job(self, name: str) -> Job | None:
        return next((job for job in self.jobs if job.name == name and not job.is_deleted), None)

    def _events(self, wanted: dict[str, str]) -> list[dict[str, Any]]:
        events = []
        for job in self.jobs:
            if job.is_deleted:
                continue
            if job.pod is None:
                events.append(_event("Job", job.name, "FailedCreate", job.created))
            elif job.pod.trouble == "FailedMount":
                events.append(_event("Pod", job.pod.name, "FailedMount", job.pod.created))
        fields = ("involvedObject.kind", "involvedObject.name", "reason")
        return [
            event
            for event in events
            if all(wanted.get(path, value) == value for path in fields for value in [_at(event, path)])
        ]


@contextlib.contextmanager
def running_cluster(folder: Path, slots: int = 3) -> Iterator[Cluster]:
    """A cluster in a new folder."""
    folder.mkdir()
    with Cluster(folder, slots) as cluster:
        yield cluster


def kubeconfig(server: str) -> str:
    """For clients of a server without users and certificates."""
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "stand-in",
            "clusters": [{"name": "stand-in", "cluster": {"server": server}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "stand-in", "context": {"cluster": "stand-in", "user": "test"}}],
        }
    )


def _job_json(job: Job) -> dict[str, Any]:
    pod = job.pod
    phase = pod.phase if pod else ""
    status: dict[str, Any] = {"startTime": _stamp(job.created)}
    if phase in ("Pending", "Running"):
        status["active"] = 1
    if phase == "Succeeded":
        status |= {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}
    if phase == "Failed":
        said = {"reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}
        status |= {"failed": 1, "conditions": [{"type": "Failed", "status": "True", **said}]}
    if job.is_too_late:
        said = {"reason": "DeadlineExceeded", "message": "Job was active longer than specified deadline"}
        status = {
            "startTime": _stamp(job.created),
            "failed": 1,
            "conditions": [{"type": "Failed", "status": "True", **said}],
        }
    metadata = {"namespace": NAMESPACE, "uid": job.uid, "creationTimestamp": _stamp(job.created)}
    return job.manifest | {"metadata": job.manifest["metadata"] | metadata, "status": status}


def _pod_json(pod: Pod) -> dict[str, Any]:
    template = pod.job.manifest["spec"]["template"]
    scheduled: dict[str, Any] = {"type": "PodScheduled", "status": "True"}
    status: dict[str, Any] = {"phase": pod.phase}
    state: dict[str, Any] = {"waiting": {"reason": "ContainerCreating"}}
    if pod.trouble == "Unschedulable":
        scheduled |= {"status": "False", "reason": "Unschedulable", "message": MESSAGES["Unschedulable"]}
    elif pod.trouble == "ImagePullBackOff":
        state = {"waiting": {"reason": "ImagePullBackOff", "message": MESSAGES["ImagePullBackOff"]}}
    elif pod.phase == "Running":
        state = {"running": {"startedAt": _stamp(pod.created)}}
    elif pod.exit_code is not None:
        reason = "OOMKilled" if pod.death == "OOMKilled" else ("Error" if pod.exit_code else "Completed")
        state = {"terminated": {"exitCode": pod.exit_code, "reason": reason}}
    if pod.death == "Evicted" and pod.exit_code is not None:
        status |= {"reason": "Evicted", "message": "The node was low on resource: memory."}
    container = {
        "name": pod.job.container["name"],
        "image": pod.job.container["image"],
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": state,
    }
    if pod.trouble != "Unschedulable":
        status["containerStatuses"] = [container]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "spec": template["spec"],
        "metadata": {
            "name": pod.name,
            "namespace": NAMESPACE,
            "creationTimestamp": _stamp(pod.created),
            "labels": template["metadata"]["labels"] | {"job-name": pod.job.name},
        },
        "status": status | {"conditions": [scheduled]},
    }


def _event(kind: str, name: str, reason: Trouble, at: datetime) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.1", "namespace": NAMESPACE},
        "involvedObject": {"kind": kind, "name": name},
        "reason": reason,
        "message": MESSAGES[reason],
        "type": "Warning",
        "lastTimestamp": _stamp(at),
    }


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _list(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items}


def _status(code: int, reason: str, message: str) -> tuple[int, dict[str, Any]]:
    body = {"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": reason, "message": message}
    return code, body | {"code": code}


def _selected(query: dict[str, str], kind: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in query.get(kind, "").split(",") if part)
    return {name: value.lstrip("=") for name, _, value in pairs}


def _at(found: dict[str, Any], path: str) -> str:
    for name in path.split("."):
        found = found[name]
    return str(found)


_PATH = re.compile(
    rf"/(?:api/v1|apis/batch/v1)/namespaces/{NAMESPACE}/(?P<kind>jobs|pods|events)(?:/(?P<name>[^/]+))?(?:/(?P<part>\w+))?$"
)


def _handler(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(lambda kind, name, part, query: cluster.get(kind, name, part, query))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(lambda *_: cluster.post_job(body))

        def do_DELETE(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._answer(lambda kind, name, *_: cluster.delete(kind, name))

        def _answer(self, work: Callable[[str, str, str, dict[str, str]], tuple[int, Any]]) -> None:
            url = urlsplit(self.path)
            match = _PATH.match(url.path)
            code, body = _status(404, "NotFound", f"no such resource here: {url.path}")
            if match:
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                code, body = work(match["kind"], match["name"] or "", match["part"] or "", query)
            content = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(code)
            self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
