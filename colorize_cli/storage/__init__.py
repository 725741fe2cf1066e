"""Files on this machine and in remote stores: discovery, complete writes, manifests."""
