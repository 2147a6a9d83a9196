"""`dagster-daemon` with a second between its looks, where it would wait for five; nothing else is changed."""

from dagster._daemon import asset_daemon, sensor
from dagster._daemon.cli import main

asset_daemon.MIN_INTERVAL_LOOP_SECONDS = 1
sensor.MIN_INTERVAL_LOOP_TIME = 1

if __name__ == "__main__":
    main()
