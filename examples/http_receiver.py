"""Python's own HTTP server: what PUT brings is answered with its SHA-256.

xsk-engine lab peer -- python examples/http_receiver.py 10.77.0.2 8080
"""

import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import click


class Receiver(BaseHTTPRequestHandler):
    def do_PUT(self):
        found, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left:
            data = self.rfile.read(min(left, 1 << 18))
            if not data:
                return  # the sender has gone
            found.update(data)
            left -= len(data)
        answer = found.hexdigest().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        """Says nothing of requests."""


@click.command()
@click.argument("address")
@click.argument("port", type=int)
def command(address, port):
    ThreadingHTTPServer((address, port), Receiver).serve_forever()


if __name__ == "__main__":
    command()
