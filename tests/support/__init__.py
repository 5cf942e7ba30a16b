"""What tests are made of: factories, stand-ins for devices and networks, and judges."""
