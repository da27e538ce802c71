"""`python -m dgcctl` is `dgcctl`."""

from dgcctl.cli.main import run

if __name__ == "__main__":
    run()
