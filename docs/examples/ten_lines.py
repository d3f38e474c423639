import sys
import time

from supervisor import Service, ServiceContext, command, run, service


class Ticker(Service):
    async def init(self, context: ServiceContext) -> None:
        context.log.info("ticking", since=time.time())


if __name__ == "__main__":
    web = command("web", ["python3", "-m", "http.server", "8000"], ready="tcp:8000")
    sys.exit(run([web, service("ticker", Ticker)], strategy="rest_for_one"))
