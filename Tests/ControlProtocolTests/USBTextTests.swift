// USB lists as people and old scripts see them.

import ControlProtocol
import Testing

@Suite struct USBTextTests {
    private static let stick = USBDevice(
        bus: "1-1.4",
        vendor: 0x0781,
        product: 0x5567,
        name: "SanDisk Cruzer",
        serial: "4C53",
        speed: "high"
    )

    private static func controller(_ index: Int, state: String, version: Int?, _ ports: [USBController.Port])
        -> USBController
    {
        let device = Device(
            path: "backend/vusb/7/\(index)",
            kind: "vusb",
            domain: 7,
            index: index,
            backendState: state,
            frontendState: "connected",
            phase: "serving"
        )
        return USBController(device: device, backend: 0, version: version, ports: ports)
    }

    @Test func assignableDevicesAreOnALineEach() {
        let bare = USBDevice(bus: "10-12.3.4.5", vendor: 0xA, product: 1, speed: "low")
        let evil = USBDevice(bus: "2-1", vendor: 0xFFFF, product: 0, name: "x\u{1B}[2J", speed: "full")
        #expect(
            USBListAssignable.Reply(devices: [Self.stick, bare, evil]).text == """
                1-1.4        : ID 0781:5567 SanDisk Cruzer
                10-12.3.4.5  : ID 000a:0001
                2-1          : ID ffff:0000 x?[2J

                """
        )
        #expect(USBListAssignable.Reply(devices: []).text == "no assignable devices\n")
    }

    @Test func controllersShowTheirPorts() {
        let reply = USBList.Reply(controllers: [
            Self.controller(
                0,
                state: "connected",
                version: 2,
                [
                    .init(number: 1, wanted: "1-1.4", device: Self.stick), .init(number: 2),
                    .init(number: 3, wanted: "3-1"), .init(number: 5, wanted: "3-2", problem: "3-2 is a hub"),
                    .init(number: 4, wanted: "0781:5567", device: Self.stick),
                ]
            ),
            Self.controller(12, state: "initWait", version: 1, []),
            Self.controller(3, state: "none", version: nil, []),
        ])
        #expect(
            reply.text == """
                Idx BE  state usb-ver BE-path
                0   0   4     USB2.0  /local/domain/0/backend/vusb/7/0
                port 1: 1-1.4 [ID 0781:5567 SanDisk Cruzer]
                port 2:
                port 3: 3-1 [not there]
                port 5: 3-2 [3-2 is a hub]
                port 4: 1-1.4 [ID 0781:5567 SanDisk Cruzer] by 0781:5567
                12  0   2     USB1.1  /local/domain/0/backend/vusb/7/12
                3   0   ?     ?       /local/domain/0/backend/vusb/7/3

                """
        )
        #expect(USBList.Reply(controllers: []).text == "no USB controllers\n")
    }
}
