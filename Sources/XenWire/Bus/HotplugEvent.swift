// What the toolstack's hotplug script is run for.

/// The script's first argument, as libxl gives it (libxl_linux.c, `libxl__get_hotplug_script_info`).
public enum HotplugEvent: String, Codable, Hashable, Sendable, CaseIterable { case add, remove }
