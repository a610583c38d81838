"""keep.py CMD...: runs CMD in a process group of its own until it ends or standard input does, and then ends the group, by id.

A test program has no end at which it could clean up: a panic or a kill may come any time. Its pipes are closed in every case.
"""

import os
import signal
import subprocess
import sys
import threading

GRACE = 10


def main():
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)

    def end(*_):
        # Only what was started here: the child is not waited for yet, so its id is still its own.
        if child.poll() is None:
            child.terminate()

    def listen():
        while sys.stdin.buffer.read(4096):
            pass
        end()
        try:
            child.wait(GRACE)
        except subprocess.TimeoutExpired:
            child.kill()

    signal.signal(signal.SIGTERM, end)
    # An interrupt goes to the whole foreground; the test's end will close the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=listen, daemon=True).start()
    code = child.wait()
    try:
        # What it has left behind: a group lives as long as one of its members.
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    # Not sys.exit: the listening thread may hold standard input.
    os._exit(code if code >= 0 else 128 - code)


main()
