"""A pretended NVML, to try every path of the telemetry where there is no GPU: never to measure."""

import os
from types import SimpleNamespace


class NVMLError(Exception):
    """As ``pynvml`` raises it."""

    def __init__(self, value) -> None:
        super().__init__(value)
        self.value = value

    def __str__(self) -> str:
        return {2: "Invalid Argument", 3: "Not Supported", 13: "Function Not Found", 15: "GPU is lost"}[self.value]


class FakeNvml:
    """What ``pynvml`` offers. ``state`` holds the next answers; an ``NVMLError`` in it is raised.

    Attributes:
        state: sm, memory, mw, celsius, mj, reasons, pids, mps, mig, capability, application, limit_mw;
            ``mj`` and ``reasons`` may be functions of no argument.
        calls: names of the functions that were called.
        opened: nvmlInit less nvmlShutdown.
    """

    NVMLError = NVMLError
    NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_NO_PERMISSION, NVML_ERROR_FUNCTION_NOT_FOUND = 3, 4, 13
    NVML_ERROR_ARGUMENT_VERSION_MISMATCH, NVML_ERROR_GPU_IS_LOST = 25, 15
    NVML_DEVICE_MIG_ENABLE = 1
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self, **state) -> None:
        usual = {"sm": 1980, "memory": 3201, "mw": 400_000, "celsius": 50, "mj": 0, "reasons": 0, "pids": (), "mps": ()}
        usual |= {
            "uuids": ("GPU-aa11-0",),
            "mig": (),
            "capability": (9, 0),
            "near": [range(os.cpu_count() or 1)] * 9,
            "used": 0,
            "application": NVMLError(3),  # as drivers that know no such clock any more
            "limit_mw": 700_000,
        }
        self.state = usual | state
        self.calls: list[str] = []
        self.opened = 1

    def _answer(self, name, key):
        self.calls.append(name)
        found = self.state[key]
        if isinstance(found, NVMLError):
            raise found
        return found() if callable(found) else found

    def library(self):
        """In the place of ``nvml.library``."""
        self.opened += 1
        return self

    def nvmlShutdown(self):
        self.opened -= 1

    def nvmlDeviceGetCount(self):
        return len(self.state["uuids"])

    def nvmlDeviceGetHandleByIndex(self, index):
        if not 0 <= index < len(self.state["uuids"]):
            raise NVMLError(2)
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):
        found = [number for number, known in enumerate(self.state["uuids"]) if known.startswith(uuid)]
        if len(found) != 1:
            raise NVMLError(2)
        return found[0]

    def nvmlDeviceGetUUID(self, device):
        return self.state["uuids"][device]

    def nvmlDeviceGetName(self, _device):
        return "pretended GPU"

    def nvmlSystemGetDriverVersion(self):
        return "580.0"

    def nvmlSystemGetCudaDriverVersion_v2(self):
        return 13000

    def nvmlDeviceGetMemoryInfo(self, _device):
        return SimpleNamespace(used=self._answer("memory_info", "used"))

    def nvmlDeviceGetMigMode(self, device):
        return [int(device in self._answer("mig", "mig")), 0]

    def nvmlDeviceGetCpuAffinity(self, device, words):
        near = self.state["near"][device]
        return [sum(1 << core - 64 * word for core in near if core // 64 == word) for word in range(words)]

    def nvmlDeviceGetClockInfo(self, _device, kind):
        return self._answer("clock", "sm" if kind == self.NVML_CLOCK_SM else "memory")

    def nvmlDeviceGetApplicationsClock(self, _device, kind):
        return self._answer("application clock", "application" if kind == self.NVML_CLOCK_SM else "memory")

    def nvmlDeviceGetEnforcedPowerLimit(self, _device):
        return self._answer("power limit", "limit_mw")

    def nvmlDeviceGetPowerUsage(self, _device):
        return self._answer("power", "mw")

    def nvmlDeviceGetTemperature(self, _device, _sensor):
        return self._answer("temperature", "celsius")

    def nvmlDeviceGetTotalEnergyConsumption(self, _device):
        return self._answer("energy", "mj")

    def nvmlDeviceGetCurrentClocksEventReasons(self, _device):
        return self._answer("reasons", "reasons")

    nvmlDeviceGetCurrentClocksThrottleReasons = nvmlDeviceGetCurrentClocksEventReasons

    def nvmlDeviceGetCudaComputeCapability(self, _device):
        return self._answer("capability", "capability")

    def nvmlDeviceGetComputeRunningProcesses(self, _device):
        return [SimpleNamespace(pid=pid) for pid in self._answer("processes", "pids")]

    def nvmlDeviceGetMPSComputeRunningProcesses(self, _device):
        return [SimpleNamespace(pid=pid) for pid in self._answer("mps", "mps")]
