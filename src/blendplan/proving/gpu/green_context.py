"""Streams that own a share of the SMs: CUDA green contexts, through the driver."""

import ctypes
from typing import Any

import torch

_RESOURCE_BYTES = 144  # sizeof(CUdevResource)
_SM_COUNT_OFFSET = 96
_SM_RESOURCE = 1
_DEFAULT_STREAM = 1
_NON_BLOCKING = 1


class PartitionError(RuntimeError):
    """The driver refuses to split the SMs."""


class SmPartition:
    """The SMs of the GPU in two parts, with a stream on each.

    Attributes:
        first, second: the streams.
        first_sms, second_sms: how many SMs each has; the driver rounds to its granularity.
    """

    def __init__(self, first_sms: int) -> None:
        """Split off about ``first_sms`` SMs for the first stream.

        Raises:
            PartitionError: the driver offers no green contexts or no such split.
        """
        torch.cuda.synchronize()
        self._driver = _driver()
        whole = _resource()
        self._call("cuDeviceGetDevResource", 0, whole, _SM_RESOURCE)
        first, rest = _resource(), _resource()
        groups = ctypes.c_uint(1)
        self._call(
            "cuDevSmResourceSplitByCount", first, ctypes.byref(groups), whole, rest, 0, first_sms
        )
        self.first_sms, self.second_sms = _sm_count(first), _sm_count(rest)
        if not self.first_sms or not self.second_sms:
            raise PartitionError(f"no split with {first_sms} SMs")
        self.first, self.second = self._stream(first), self._stream(rest)

    def _stream(self, resource: Any) -> torch.cuda.ExternalStream:
        description, context, stream = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuDevResourceGenerateDesc", ctypes.byref(description), resource, 1)
        self._call("cuGreenCtxCreate", ctypes.byref(context), description, 0, _DEFAULT_STREAM)
        self._call("cuGreenCtxStreamCreate", ctypes.byref(stream), context, _NON_BLOCKING, 0)
        return torch.cuda.ExternalStream(stream.value)

    def _call(self, name: str, *arguments: object) -> None:
        function = getattr(self._driver, name, None)
        if function is None:
            raise PartitionError(f"this driver has no {name}")
        if code := function(*arguments):
            raise PartitionError(f"{name} failed with CUDA error {code}")


def _driver() -> Any:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise PartitionError(str(error)) from None


def _resource() -> Any:
    # Room to spare, should a later driver's structure be larger.
    return (ctypes.c_char * (4 * _RESOURCE_BYTES))()


def _sm_count(resource: Any) -> int:
    return int.from_bytes(resource.raw[_SM_COUNT_OFFSET : _SM_COUNT_OFFSET + 4], "little")
