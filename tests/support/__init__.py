"""What tests are made of: factories, stand-ins for devices and networks, and judges.

Many modules: each is one helper with a name of its own, and tests find it by that.
"""
