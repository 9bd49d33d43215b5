"""`make demo`: the whole product on this machine; `make demo-local`: its trainer alone, without a cluster."""
