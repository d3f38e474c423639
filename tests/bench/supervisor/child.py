"""The Python child of the other supervisors: says that it runs, and waits for its end.

Arguments: the socket to say it to; optionally ``crash``, upon which it ends at once.
"""

import os
import signal
import socket
import sys
import time

with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as said:
    said.sendto(b"%d %d" % (os.getpid(), time.monotonic_ns()), sys.argv[1])
if sys.argv[2:] == ["crash"]:
    sys.exit(1)
while True:
    signal.pause()
