"""What jaxmoe costs on this machine: timings, the work behind them, and targets."""
