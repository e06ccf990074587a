// swift-tools-version: 6.2
// The package: floors and arrows of Architecture.md, checked by Tests/PackageTests.
import PackageDescription

let house: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InferIsolatedConformances"),
    .enableUpcomingFeature("ImmutableWeakCaptures"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    .treatAllWarnings(as: .error),
    .treatWarning("DeprecatedDeclaration", as: .warning),
]

let log: Target.Dependency = .product(name: "Logging", package: "swift-log")
let system: Target.Dependency = .product(name: "SystemPackage", package: "swift-system")
let arguments: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")

func floor(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: house)
}

func program(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .executableTarget(name: name, dependencies: dependencies, swiftSettings: house)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name + "Tests", dependencies: dependencies, swiftSettings: house)
}

let package = Package(
    name: "xenback",
    products: [
        .executable(name: "xenbackd", targets: ["xenbackd"]),
        .executable(name: "xenback", targets: ["xenback"]),
        .executable(name: "xenback-bench", targets: ["xenback-bench"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/LebJe/TOMLKit", from: "0.6.0"),
    ],
    targets: [
        // C: header-only shims and module maps.
        .target(name: "CRing"),
        .target(name: "CBench"),
        .target(name: "CLinux"),
        .systemLibrary(name: "CXen", providers: [.apt(["libxen-dev"])]),
        .systemLibrary(name: "CURing", providers: [.apt(["liburing-dev"])]),
        .systemLibrary(name: "CCodecs", providers: [.apt(["zlib1g-dev", "libzstd-dev"])]),
        .systemLibrary(name: "CNetlink", pkgConfig: "libnl-route-3.0", providers: [.apt(["libnl-route-3-dev"])]),
        .systemLibrary(name: "CUSB", pkgConfig: "libusb-1.0", providers: [.apt(["libusb-1.0-0-dev"])]),
        // 0
        floor("XenWire", []),
        // 1
        floor("SharedRing", ["XenWire", "CRing", system]),
        // 2
        floor("NetChannel2", ["SharedRing", "XenWire", system]),
        floor("Hypervisor", ["SharedRing", "XenWire", system]),
        floor("HostIO", ["SharedRing", "CURing", "CLinux", system]),
        floor("XenHypervisor", ["Hypervisor", "SharedRing", "XenWire", "HostIO", "CXen", "CLinux", system]),
        floor("SimulatedHypervisor", ["Hypervisor", "SharedRing", "XenWire", "HostIO", "CLinux", system]),
        floor("HypervisorContract", ["Hypervisor", "SharedRing", "XenWire", "CLinux", system]),
        // 3
        floor("ImageFormats", ["SharedRing", system]),
        floor("DiskImages", ["ImageFormats", "HostIO", "SharedRing", "CCodecs", "CLinux", system]),
        floor("HostNetwork", ["HostIO", "SharedRing", "CNetlink", "CURing", "CLinux", system]),
        floor("HostUSB", ["HostIO", "SharedRing", "CUSB", "CLinux", system]),
        floor("HostPCI", ["HostIO", "CLinux", system]),
        floor("BackendCore", ["Hypervisor", "SharedRing", "XenWire", "HostIO", log, system]),
        floor("FrontendDrivers", ["Hypervisor", "NetChannel2", "SharedRing", "XenWire", "HostIO", system]),
        // 4
        floor(
            "BlockBackend",
            ["BackendCore", "DiskImages", "HostIO", "Hypervisor", "SharedRing", "XenWire", log, system]
        ),
        floor(
            "NetBackend",
            [
                "BackendCore", "HostNetwork", "HostIO", "Hypervisor", "NetChannel2", "SharedRing", "XenWire", log,
                system,
            ]
        ),
        floor(
            "USBBackend",
            ["BackendCore", "HostUSB", "HostIO", "Hypervisor", "SharedRing", "XenWire", log, system]
        ),
        floor(
            "PCIBackend",
            ["BackendCore", "HostPCI", "HostIO", "Hypervisor", "SharedRing", "XenWire", log, system]
        ),
        floor(
            "SimulatedHost",
            [
                "FrontendDrivers", "HostNetwork", "HostUSB", "HostPCI", "HostIO", "Hypervisor", "SharedRing", "XenWire",
                "CLinux",
                system,
            ]
        ),
        // 5
        .target(
            name: "ControlProtocol",
            dependencies: ["HostIO", "XenWire", system],
            resources: [.embedInCode("org.xenback.control.varlink")],
            swiftSettings: house
        ),
        floor(
            "BackendServer",
            [
                "BlockBackend", "NetBackend", "USBBackend", "PCIBackend", "BackendCore", "DiskImages", "HostNetwork",
                "HostUSB", "HostPCI",
                "HostIO", "Hypervisor", "SharedRing", "XenWire", "ControlProtocol", "CLinux", log, system, arguments,
                .product(name: "TOMLKit", package: "TOMLKit"),
            ]
        ),
        // 6
        program("xenbackd", ["BackendServer", "XenHypervisor", "Hypervisor", log, arguments]),
        program(
            "xenback",
            [
                "ControlProtocol", "BackendServer", "NetBackend", "USBBackend", "DiskImages", "ImageFormats",
                "HostNetwork", "HostUSB",
                "SimulatedHypervisor", "SimulatedHost", "FrontendDrivers", "Hypervisor", "HostIO", "SharedRing",
                "XenWire", log, system, arguments,
            ]
        ),
        program(
            "xenback-bench",
            [
                "BackendServer", "BlockBackend", "NetBackend", "USBBackend", "BackendCore", "DiskImages", "HostNetwork",
                "HostUSB", "SimulatedHypervisor", "SimulatedHost", "XenHypervisor",
                "HypervisorContract", "FrontendDrivers", "Hypervisor", "HostIO", "SharedRing", "XenWire", "CRing",
                "CLinux", "CBench", log,
                system, arguments,
            ]
        ),
        // Tests
        .target(
            name: "TestSupport",
            dependencies: [
                "BackendCore", "HostIO", "HostNetwork", "Hypervisor", "SimulatedHost", "SimulatedHypervisor", "XenWire",
                "CLinux", log, system,
            ],
            path: "Tests/TestSupport",
            swiftSettings: house
        ),
        tests("XenWire", ["XenWire"]),
        tests("SharedRing", ["SharedRing", "XenWire", system]),
        tests("NetChannel2", ["NetChannel2", "SharedRing", "XenWire"]),
        tests("HostIO", ["TestSupport", "HostIO", "SharedRing", "CLinux", system]),
        tests(
            "SimulatedHypervisor",
            ["TestSupport", "SimulatedHypervisor", "Hypervisor", "SharedRing", "XenWire", system]
        ),
        tests("XenHypervisor", ["TestSupport", "XenHypervisor", "Hypervisor", "XenWire", "CLinux", system]),
        tests(
            "HypervisorContract",
            ["HypervisorContract", "SimulatedHypervisor", "Hypervisor", "SharedRing", "XenWire", system]
        ),
        tests(
            "FrontendDrivers",
            [
                "TestSupport", "FrontendDrivers", "SimulatedHost", "SimulatedHypervisor", "Hypervisor", "HostIO",
                "SharedRing", "XenWire", system,
            ]
        ),
        tests("ImageFormats", ["ImageFormats", "SharedRing", system]),
        tests("DiskImages", ["DiskImages", "ImageFormats", "HostIO", "SharedRing", "CLinux", system]),
        tests(
            "BackendCore",
            [
                "TestSupport", "BackendCore", "SimulatedHypervisor", "Hypervisor", "HostIO", "SharedRing", "XenWire",
                log,
                system,
            ]
        ),
        tests(
            "BlockBackend",
            [
                "TestSupport",
                "BlockBackend", "BackendCore", "DiskImages", "FrontendDrivers", "SimulatedHost", "SimulatedHypervisor",
                "Hypervisor", "HostIO", "SharedRing", "XenWire", log, system,
            ]
        ),
        tests(
            "HostNetwork",
            ["TestSupport", "HostNetwork", "SimulatedHost", "HostIO", "SharedRing", "CLinux", system]
        ),
        tests("HostUSB", ["TestSupport", "HostUSB", "SimulatedHost", "HostIO", "SharedRing", "CLinux", system]),
        tests("HostPCI", ["HostPCI", "HostIO", system]),
        tests(
            "SimulatedHost",
            ["TestSupport", "SimulatedHost", "HostNetwork", "HostUSB", "HostIO", "SharedRing", system]
        ),
        tests(
            "NetBackend",
            [
                "TestSupport",
                "NetBackend", "BackendCore", "HostNetwork", "FrontendDrivers", "SimulatedHost", "SimulatedHypervisor",
                "Hypervisor", "HostIO", "NetChannel2", "SharedRing", "XenWire", log, system,
            ]
        ),
        tests(
            "USBBackend",
            [
                "TestSupport",
                "USBBackend", "BackendCore", "HostUSB", "FrontendDrivers", "SimulatedHost", "SimulatedHypervisor",
                "Hypervisor", "HostIO", "SharedRing", "XenWire", log, system,
            ]
        ),
        tests(
            "PCIBackend",
            [
                "TestSupport",
                "PCIBackend", "BackendCore", "HostPCI", "FrontendDrivers", "SimulatedHost", "SimulatedHypervisor",
                "Hypervisor", "HostIO", "SharedRing", "XenWire", log, system,
            ]
        ),
        tests("ControlProtocol", ["ControlProtocol", "HostIO", "XenWire", system]),
        tests(
            "BackendServer",
            [
                "TestSupport", "BackendServer", "BlockBackend", "NetBackend", "BackendCore", "ControlProtocol",
                "FrontendDrivers", "HostNetwork", "HostUSB", "HostPCI", "SimulatedHost", "SimulatedHypervisor",
                "Hypervisor", "HostIO", "NetChannel2",
                "SharedRing", "XenWire", "DiskImages",
                log, system,
            ]
        ),
        tests("xenback", ["xenback", "ControlProtocol", "DiskImages", "ImageFormats", "HostIO", "XenWire", system]),
        tests("Package", [system]),
    ],
    swiftLanguageModes: [.v6]
)
