"""The Flower app: configuration, messages, exchange, server and client apps, command line, results."""
