"""A command line that starts at once: a server that has imported normcli forks a process for each run of it.

As a command, ``warm.py SOCKET ARGUMENT...`` has the server run normcli with these arguments, and this process's
streams, folder and environment. What Python settles when it starts, such as encodings, is the server's.
"""

import json
import os
import signal
import socket
import sys


def run(address: str, arguments: list[str]) -> None:
    """Have normcli run, and end as it does."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        request = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode()  # noqa: PTH109  (pathlib takes longer)
        socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
        server.sendall(request)
        code = int(server.recv(8))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def serve(address: str, modules: list[str]) -> None:
    """Fork a process for each request; only there it returns, to become what was asked for."""
    import gc
    import importlib

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as normcli has it, before NumPy is imported
    for module in modules:
        importlib.import_module(module)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print("ready", flush=True)
    while True:
        asked, _ = listener.accept()
        if os.fork():
            asked.close()
            continue
        listener.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        size, streams, _, _ = socket.recv_fds(asked, 8, 3)
        with asked.makefile("rb") as file:
            arguments, folder, environment = json.loads(file.read(int.from_bytes(size, "big")))
        if child := os.fork():
            for stream in streams:
                os.close(stream)
            asked.sendall(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
            os._exit(0)
        asked.close()
        _become(arguments, folder, environment, streams)
        return


def _become(arguments: list[str], folder: str, environment: dict[str, str], streams: list[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = ["normcli", *arguments]
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    if sys.argv[1] != "serve":
        run(sys.argv[1], sys.argv[2:])
    serve(sys.argv[2], sys.argv[3:])
    from normcli.__main__ import main

    main()
