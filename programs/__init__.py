"""Commands and the Launchpad program behind them."""
