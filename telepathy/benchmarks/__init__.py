"""How fast the pipeline is: latency, throughput, memory, and the least that the hardware would take."""
