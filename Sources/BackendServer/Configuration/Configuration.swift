// The settings of /etc/xenback/xenbackd.toml, as values.

internal import BackendCore
internal import HostIO
public import Logging
internal import SharedRing
public import SystemPackage

#if canImport(Glibc)
    internal import Glibc
#endif

/// What the administrator decided. Everything has a default: an empty file, or none, is a good configuration.
public struct Configuration: Equatable, Sendable {
    /// Where the file is looked for unless the command line says otherwise.
    public static let defaultPath: FilePath = "/etc/xenback/xenbackd.toml"

    /// Sockets, locks and journals; must be on a file system in memory. nil: /run/xenbackd.
    public var runDirectory: FilePath?
    public var logLevel: Logger.Level = .info
    /// Threads a worker may use for data; nil: as many as the host has processors, at most 4.
    public var dataLoops: Int?
    /// Whether one more worker than needed is kept ready to replace one that dies.
    public var spareWorker = true
    public var block = Block()
    public var net = Net()
    public var usb = USB()
    public var pci = PCI()
    public var kernel = Kernel()
    public var grants = Grants()

    public init() {}

    /// `[block]`
    public struct Block: Equatable, Sendable {
        /// Which devices of kind `vbd` are ours; nil: `script` in domain 0, `all` in a driver domain.
        public var vbd: OwnVbd?
        /// Whether devices of kind `qdisk` are ours: only in a driver domain where no QEMU takes them.
        public var qdisk = false
        /// Rings a frontend may use for one disk, 1 … 16; nil: as many as the host has processors, at most 4.
        public var queues: Int?
        /// Rings of up to 2^order pages, 0 … 4.
        public var ringPageOrder = 4
        public var persistentGrants = true

        public init() {}
    }

    /// `[net]`
    public struct Net: Equatable, Sendable {
        /// Whether network cards (devices of kind `vif`) are ours. The kernel's xen-netback must not be loaded then.
        public var vif = true
        /// Queues a frontend may use for one card, 1 … 16; nil: as many as the host has processors, at most 8.
        public var queues: Int?
        public var nativeSetup = NativeSetup.driverDomain
        /// Whether a thread of the kernel (vhost-net) carries packets, where there is one.
        public var vhost = false

        public init() {}
    }

    /// `[usb]`
    public struct USB: Equatable, Sendable {
        /// Whether USB controllers of kind `vusb` are ours: those of `xenback usb-hc-create`, and xl's with `type=pv`.
        public var vusb = true
        /// Whether those of kind `qusb` are ours: only where no QEMU takes them.
        public var qusb = false

        public init() {}
    }

    /// `[grants]`: how many pages of guests may be mapped.
    public struct Grants: Equatable, Sendable {
        /// Pages of one guest.
        public var guestPages = 16384
        /// Pages of all guests together; nil: a quarter of this domain's memory.
        public var hostPages: Int?

        public init() {}

        /// With what the host has filled in.
        var limits: GrantBudget.Limits {
            let memory = sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE)) / SharedPages.pageSize
            return GrantBudget.Limits(
                guestPages: guestPages,
                hostPages: hostPages ?? max(memory / 4, Grants.hostMinimum),
                mappings: GrantBudget.Limits.mappingsHere
            )
        }

        static let guestMinimum = 64
        static let hostMinimum = 1024
    }

    /// When xenback itself puts a card's interface on its bridge, instead of the toolstack's script.
    public enum NativeSetup: String, Equatable, Sendable, CaseIterable {
        /// Where no script runs: outside domain 0.
        case driverDomain = "driver-domain"
        case always
        case never
    }

    /// Which devices of kind `vbd` xenback serves.
    public enum OwnVbd: String, Equatable, Sendable, CaseIterable {
        /// Those whose `script` is `block-xenback`.
        case script
        case all
        case none
    }

    /// `kernel-vbd`, which `[kernel] bind` has replaced: `bind` is the same as `vbd` in it.
    fileprivate enum KernelVbd: String, CaseIterable {
        case leave
        case bind
    }
}

extension Configuration {
    /// Reads a file.
    ///
    /// - Throws: `ConfigurationError`; a file that is not there is an error too.
    public init(file: FilePath) throws(ConfigurationError) {
        try self.init(toml: Self.text(of: file), file: file.string)
    }

    /// Reads the text of a file.
    ///
    /// - Parameter file: its name, for errors.
    public init(toml text: String, file: String) throws(ConfigurationError) {
        self.init()
        var top = try ConfigurationReader(text: text, file: file)
        runDirectory = try top.path("run-directory")
        logLevel = try top.choice("log-level", Logger.Level.allCases) ?? logLevel
        dataLoops = try top.integer("data-loops", in: 1...64)
        spareWorker = try top.boolean("spare-worker") ?? spareWorker
        if var table = try top.table("kernel") {
            kernel = try Kernel(&table)
            try table.refuseUnknownKeys()
        }
        if var table = try top.table("block") {
            block = try Block(&table)
            let older = try table.choice("kernel-vbd", KernelVbd.allCases)
            if older == .bind, !kernel.bind.contains(.vbd) { kernel.bind.append(.vbd) }
            if block.vbd == .all, older == .bind { throw table.error(Self.everyDisk, at: "kernel-vbd") }
            try table.refuseUnknownKeys()
        }
        if var table = try top.table("net") {
            net = try Net(&table)
            try table.refuseUnknownKeys()
        }
        if var table = try top.table("usb") {
            usb = try USB(&table)
            try table.refuseUnknownKeys()
        }
        if var table = try top.table("pci") {
            pci = try PCI(&table)
            try table.refuseUnknownKeys()
        }
        if var table = try top.table("grants") {
            grants = try Grants(&table)
            try table.refuseUnknownKeys()
        }
        try top.refuseUnknownKeys()
        if let reason = nothingToBind { throw top.error(reason, at: "kernel") }
    }

    private static let everyDisk = "nothing is left to bind: vbd = \"all\" takes every disk"

    /// A kind of which every device is ours, and which is to be given to the kernel all the same.
    private var nothingToBind: String? {
        if kernel.bind.contains(.vbd), block.vbd == .all { return Self.everyDisk }
        if kernel.bind.contains(.vif), net.vif {
            return "nothing is left to bind: [net] vif = true takes every network card"
        }
        guard kernel.bind.contains(.pci), pci.pci else { return nil }
        return "nothing is left to bind: [pci] pci = true takes every PCI card"
    }

    static func text(of file: FilePath) throws(ConfigurationError) -> String {
        do throws(Errno) {
            return String(decoding: try Files.contents(of: file, limit: 1 << 20), as: UTF8.self)
        } catch {
            throw ConfigurationError(
                file: file.string,
                line: nil,
                column: nil,
                reason: "\(error)",
                isMissingFile: error == .noSuchFileOrDirectory
            )
        }
    }
}

extension Configuration.Block {
    fileprivate init(_ table: inout ConfigurationReader) throws(ConfigurationError) {
        self.init()
        vbd = try table.choice("vbd", Configuration.OwnVbd.allCases)
        qdisk = try table.boolean("qdisk") ?? qdisk
        queues = try table.integer("queues", in: 1...16)
        ringPageOrder = try table.integer("ring-page-order", in: 0...4) ?? ringPageOrder
        persistentGrants = try table.boolean("persistent-grants") ?? persistentGrants
    }
}

extension Configuration.Net {
    fileprivate init(_ table: inout ConfigurationReader) throws(ConfigurationError) {
        self.init()
        vif = try table.boolean("vif") ?? vif
        queues = try table.integer("queues", in: 1...16)
        nativeSetup = try table.choice("native-setup", Configuration.NativeSetup.allCases) ?? nativeSetup
        vhost = try table.boolean("vhost") ?? vhost
    }
}

extension Configuration.Grants {
    fileprivate init(_ table: inout ConfigurationReader) throws(ConfigurationError) {
        self.init()
        guestPages = try table.integer("guest-pages", in: Configuration.Grants.guestMinimum...1 << 20) ?? guestPages
        hostPages = try table.integer("host-pages", in: Configuration.Grants.hostMinimum...1 << 30)
    }
}

extension Configuration.USB {
    fileprivate init(_ table: inout ConfigurationReader) throws(ConfigurationError) {
        self.init()
        vusb = try table.boolean("vusb") ?? vusb
        qusb = try table.boolean("qusb") ?? qusb
        if qusb, !vusb { throw table.error("qusb = true serves vusb too: leave vusb out", at: "vusb") }
    }
}
