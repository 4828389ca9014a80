"""The section `compute` of `pipeline.yaml`: resources of each asset's steps where every step has a pod of its own."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from batch_scoring.config.section import Section


def _quantity(text: str) -> str:
    if text and not re.fullmatch(r"[1-9]\d*(\.\d+)?(Ki|Mi|Gi|Ti|k|M|G|T)?", text):
        raise ValueError("not an amount of memory; expected for example 512Mi or 8Gi")
    return text


def _bytes(quantity: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(\w*)", quantity).groups()  # type: ignore[union-attr]  # validated
    base = 1024 if unit.endswith("i") else 1000
    return float(number) * float(base ** " kmgt".index(unit[:1].lower() or " "))


Memory = Annotated[str, AfterValidator(_quantity)]
LabelKey = Annotated[str, Field(pattern=r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$")]


class Toleration(Section):
    """A toleration: a taint of nodes that a pod accepts."""

    key: LabelKey = Field(description="the taint's key, for example nvidia.com/gpu")
    operator: Literal["Exists", "Equal"] = Field(default="Exists", description="Exists, or Equal for one value")
    value: LabelValue = Field(default="", description="the taint's value, with Equal")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(
        default="NoSchedule", description="the taint's effect; any if empty"
    )

    @model_validator(mode="after")
    def _whole(self) -> "Toleration":
        if (self.operator == "Equal") != bool(self.value):
            raise ValueError("value goes with operator: Equal, and only with it")
        return self


class Pod(Section):
    """Resources of an asset's steps when each step has its own pod. No setting here changes a result."""

    cpu: float = Field(default=1, gt=0, le=1024, description="reserved cores, and number of threads")
    memory: Memory = Field(default="2Gi", min_length=1, description="request and limit of memory: 512Mi, 8Gi")
    image: str = Field(default="", pattern=r"^\S*$", description="container image, if not the code location's")
    node_selector: dict[LabelKey, LabelValue] = Field(default={}, description="labels that the node must have")
    tolerations: tuple[Toleration, ...] = Field(default=(), description="taints that the node may have")
    spot: bool = Field(
        default=False, description="whether the node may be a spot node, which can be reclaimed at any time"
    )
    shared_memory: Memory = Field(default="", description="size of /dev/shm, part of `memory`; 64 MB if empty")
    pool: str = Field(default="", pattern=r"^[\w./-]*$", description="pool that limits these steps across all runs")
    retries: int = Field(default=2, ge=0, le=20, description="new pods for a step whose pod was lost, within one run")
    start_minutes: float = Field(
        default=20, gt=0, le=10080, description="minutes that a pod may wait for a node, an image or quota"
    )
    max_hours: float | None = Field(
        default=None,
        gt=0,
        le=168,
        description="hours after which the step's pod is terminated, pending time included; none: runs.max_hours",
    )

    @property
    def memory_bytes(self) -> float:
        """`memory` as a number."""
        return _bytes(self.memory)

    @model_validator(mode="after")
    def _fits(self) -> "Pod":
        if self.shared_memory and _bytes(self.shared_memory) >= self.memory_bytes:
            raise ValueError(f"shared_memory is part of memory; expected less than {self.memory}")
        return self


class ScoringPod(Pod):
    """Resources of the steps that score: only they may have a GPU."""

    cpu: float = Field(default=2, gt=0, le=1024, description="reserved cores, and number of threads")
    memory: Memory = Field(default="4Gi", min_length=1, description="request and limit of memory: 512Mi, 8Gi")
    gpu: int = Field(default=0, ge=0, le=16, description="GPUs per step; 0: score on the CPU")
    gpu_resource: LabelKey = Field(
        default="nvidia.com/gpu", description="resource name of a GPU, as the device plugin defines it"
    )


class Compute(Section):
    """Resources of the assets' steps under the executor k8s; settings that an asset omits come from `default`."""

    default: Pod = Pod()
    raw_input: Pod = Pod()
    validated_features: Pod = Pod()
    model: Pod = Pod()
    predictions: ScoringPod = ScoringPod()
    drift: Pod = Pod()
    decisions: Pod = Pod()
    exports: Pod = Pod()
    report: Pod = Pod()
    retention: Pod = Pod()

    def of(self, asset: str) -> Pod:
        """Resources of an asset's steps, with `default` filled in."""
        own: Pod = getattr(self, asset)
        declared = {name: getattr(part, name) for part in (self.default, own) for name in part.model_fields_set}
        return type(own)(**declared)

    @model_validator(mode="after")
    def _fits(self) -> "Compute":
        for asset in type(self).model_fields:
            self.of(asset)
        return self
