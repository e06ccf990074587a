// Answers as text for a terminal.

extension List.Reply {
    public var text: String {
        if devices.isEmpty { return "no devices\n" }
        var table = TextTable("DOMAIN", "NAME", "DEVICE", "KIND", "BACKEND", "FRONTEND", "WORKER", "PHASE", "PROBLEM")
        for device in devices {
            table.add(
                "\(device.domain)",
                device.domainName,
                device.shownName,
                device.kind,
                device.backendState,
                device.frontendState,
                device.worker.map(String.init),
                device.phase,
                device.problem
            )
        }
        return table.text
    }
}

extension BlockList.Reply {
    public var text: String {
        if disks.isEmpty { return "no disks\n" }
        var table = TextTable("DEVICE", "NUMBER", "KIND", "STATE", "MODE", "SIZE", "BLOCK", "TARGET")
        for disk in disks {
            table.add(
                disk.device.node,
                "\(disk.device.index)",
                disk.device.kind + (disk.cdrom ? " cdrom" : ""),
                disk.device.backendState,
                disk.readOnly ? "r" : "w",
                disk.sectors.map(Self.size),
                disk.logicalBlockSize.map(String.init),
                disk.target ?? (disk.cdrom ? "(empty)" : nil)
            )
        }
        return table.text
    }

    /// In the largest unit in which it is at least 1: `1.5 GiB`, `512 B`.
    static func size(_ sectors: Int64) -> String {
        var value = Double(sectors) * 512
        for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
            if value < 1024 { return tidy(value) + " " + unit }
            value /= 1024
        }
        return tidy(value) + " PiB"
    }

    /// One digit after the point, and none if it is a zero.
    private static func tidy(_ value: Double) -> String {
        let tenths = Int64((value * 10).rounded())
        return tenths % 10 == 0 ? "\(tenths / 10)" : "\(tenths / 10).\(tenths % 10)"
    }
}

extension NetworkList.Reply {
    public var text: String {
        if cards.isEmpty { return "no network cards\n" }
        var table = TextTable(
            "DEVICE",
            "MAC",
            "STATE",
            "INTERFACE",
            "BRIDGE",
            "MTU",
            "QUEUES",
            "TX-PACKETS",
            "TX-BYTES",
            "TX-DROPPED",
            "RX-PACKETS",
            "RX-BYTES",
            "RX-DROPPED"
        )
        for card in cards {
            table.add(
                card.device.shownName,
                card.mac,
                card.device.backendState,
                card.interface,
                card.bridge,
                card.mtu.map(String.init),
                card.queues.map(String.init),
                "\(card.txPackets)",
                "\(card.txBytes)",
                "\(card.txDropped)",
                "\(card.rxPackets)",
                "\(card.rxBytes)",
                "\(card.rxDropped)"
            )
        }
        return table.text
    }
}

extension Device {
    /// As a `device` parameter takes it: the name in the guest, or kind and number.
    var shownName: String { node ?? "\(kind)/\(index)" }
}

extension Report {
    public var text: String {
        let name = device.domainName.map { " (\($0.printable))" } ?? ""
        var lines = [("device", device.path), ("domain", "\(device.domain)\(name)")]
        lines.append(("state", "backend \(device.backendState), frontend \(device.frontendState)"))
        lines.append(("phase", device.phase))
        if let worker = device.worker { lines.append(("worker", "process \(worker)")) }
        lines += facts.map { ($0.name, $0.value) }
        lines.append(("last fault", lastFault ?? "none"))
        lines.append(("last failure", lastFailure ?? "none"))
        // Counters are indented by two, with their values aligned with the others.
        let width = (lines.map(\.0.count) + counters.map { $0.name.count + 2 }).max() ?? 0
        var text = device.shownName.printable + "\n"
        for (name, value) in lines { text += "  \(name.printable.padded(width))  \(value.printable)\n" }
        if !counters.isEmpty { text += "  counters\n" }
        for counter in counters { text += "    \(counter.name.printable.padded(width))\(counter.value)\n" }
        for histogram in latencies {
            text += histogram.text.split(separator: "\n").map { "  \($0)\n" }.joined()
        }
        return text
    }
}

extension Show.Reply {
    public var text: String {
        reports.isEmpty ? "no devices\n" : reports.map(\.text).joined(separator: "\n")
    }
}
