"""`python -m dgcctl` is `dgcctl`."""

from dgcctl.boot import run

if __name__ == "__main__":
    run()
