import sys

from supervisor import Service, ServiceContext, command, run, service


class Ticker(Service):
    async def init(self, context: ServiceContext) -> None:
        context.log.info("ticking", every_s=context.settings["every_s"])


if __name__ == "__main__":
    web = command("web", ["python3", "-m", "http.server", "8000"], ready="tcp:8000")
    ticker = service("ticker", Ticker, settings={"every_s": 2})
    sys.exit(run([web, ticker], strategy="rest_for_one", state_dir="/tmp/example"))
