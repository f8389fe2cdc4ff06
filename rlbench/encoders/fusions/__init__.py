"""How the answers of several sensors become one: plugins of the kind "fusion", one file each."""
