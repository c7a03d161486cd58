"""What routers do: statistics of their scores and loads, and plots."""
