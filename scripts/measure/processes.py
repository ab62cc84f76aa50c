"""What processes have used so far, and what the kernel's own have.

Knows: /proc. Must not know: which processes these are.
"""

import contextlib
import resource
import time
from pathlib import Path

PAGE_BYTES = resource.getpagesize()
# A ring that has ended closes its sockets by and by: they are all gone when none went for so long, s.
SETTLED_S = 0.5


def cpu_ns(pid):
    """Processor time of all threads of a process, ns."""
    return sum(ran_ns(task) for task in Path(f"/proc/{pid}/task").glob("*"))


def softirq_ns(cpus):
    """What the kernel's own threads for packets have worked so far on these processors, which nobody is charged for;
    0 where they can't be seen."""
    wanted = {f"ksoftirqd/{cpu}" for cpu in cpus}
    return sum(ran_ns(task) for task in Path("/proc").glob("[0-9]*") if name_of(task) in wanted)


def ran_ns(task):
    """How long a thread has run, ns; 0 if it has ended."""
    try:
        return int((task / "schedstat").read_text().split()[0])
    except (FileNotFoundError, ProcessLookupError):
        if (task / "comm").exists():
            # It is there: this kernel does not tell, and nothing would be measured.
            raise
        return 0


def name_of(task):
    """What a thread is called; None if it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return (task / "comm").read_text().strip()
    return None


def rss_bytes(pid):
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


def sockets():
    """TCP sockets in use on this machine."""
    lines = Path("/proc/net/sockstat").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("TCP:")).split()[2])


def sockets_left():
    """The same, when no more are being closed."""
    before, now = None, sockets()
    while now != before:
        time.sleep(SETTLED_S)
        before, now = now, sockets()
    return now
