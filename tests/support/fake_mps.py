"""A real process in place of nvidia-cuda-mps-control: it daemonises, holds its pipe folder and answers on a socket.

``FAKE_MPS=deaf`` ignores quit and SIGTERM, ``FAKE_MPS=broken`` does not start.
"""

import os
import sys
from pathlib import Path

CONTROL = """#!{python} -SE
import os, signal, socket, subprocess, sys
path = os.path.join(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"), "control")
mode = os.environ.get("FAKE_MPS")
if sys.argv[1:] != ["-d"]:
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(path)
    except OSError:
        sys.exit("Cannot find MPS control daemon process")
    client.sendall(sys.stdin.buffer.read())
    client.shutdown(socket.SHUT_WR)
    sys.stdout.write(client.makefile().read())
    sys.exit(0)
if mode == "broken":
    sys.exit("An instance of this daemon is already running")
listening = socket.socket(socket.AF_UNIX)
listening.bind(path)
listening.listen()
if os.fork():
    os._exit(0)
os.setsid()
server = subprocess.Popen([os.path.join(os.path.dirname(sys.argv[0]), "nvidia-cuda-mps-server")])
if mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: (server.kill(), server.wait(), os._exit(0)))
while True:
    asking = listening.accept()[0]
    command = asking.makefile().read().strip()
    asking.sendall(b"%d\\n" % server.pid if command == "get_server_list" else b"")
    asking.close()
    if command == "quit" and mode != "deaf":
        server.kill()
        server.wait()
        os._exit(0)
"""
SERVER = """#!{python} -SE
import os, signal, time
if os.environ.get("FAKE_MPS") == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    time.sleep(60)
"""


def install(folder: Path) -> Path:
    """Put both programs into ``folder``, to be named on PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("nvidia-cuda-mps-control", CONTROL), ("nvidia-cuda-mps-server", SERVER)):
        path = folder / name
        path.write_text(text.format(python=sys.executable))
        path.chmod(0o755)
    return folder


def on_path(folder: Path) -> str:
    """PATH with ``folder`` before everything else."""
    return f"{folder}{os.pathsep}{os.environ['PATH']}"
