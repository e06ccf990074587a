// Lines of USB controllers: xm's syntax, and errors that show the place and say what is allowed.

import ControlProtocol
import Testing

@Suite struct USBLineTests {
    /// Without the places, which `placesAreThoseOfTheDevices` looks at.
    private static func read(_ line: String) throws(DeviceLineError) -> USBLine {
        var read = try USBLine(parsing: line)
        read.ports = read.ports.map { .init(number: $0.number, device: $0.device) }
        return read
    }

    @Test(arguments: [
        ("", USBLine()),
        ("usbver=2, numports=8", USBLine()),
        ("numports=31,usbver=1", USBLine(version: .usb1, portCount: 31)),
        (
            "usbver=2, numports=8, port_1=1-1, port_2=1-2",
            USBLine(ports: [.init(number: 1, device: "1-1"), .init(number: 2, device: "1-2")])
        ),
        // In any order, with blanks anywhere, and commas too many, as xm has it.
        (
            "  port_31 = 3-1.5 ,, usbver = 2 ,\tport_2=1-2\n, numports=31,",
            USBLine(portCount: 31, ports: [.init(number: 2, device: "1-2"), .init(number: 31, device: "3-1.5")])
        ),
        (
            "port_16=2-1.1.1.1.1.1,numports=16",
            USBLine(portCount: 16, ports: [.init(number: 16, device: "2-1.1.1.1.1.1")])
        ),
        // An empty port is an empty port.
        ("port_1=, port_2= ", USBLine()),
        // xl.cfg(5), `usbctrl`; xl(1), `usbctrl-attach`: each of its keys may be missing.
        ("type=pv,version=2,ports=8", USBLine()),
        ("version=1, ports=4", USBLine(version: .usb1, portCount: 4)),
        ("type=auto", USBLine()), ("type=auto, version=2, ports=6", USBLine(portCount: 6)),
        ("ports=31", USBLine(portCount: 31)),
        ("type=pv,ports=2,port_1=0781:5581", USBLine(portCount: 2, ports: [.init(number: 1, device: "0781:5581")])),
    ])
    func reads(_ line: String, _ expected: USBLine) throws {
        #expect(try Self.read(line) == expected)
        #expect(try Self.read(expected.text) == expected)
    }

    @Test func placesAreThoseOfTheDevices() throws {
        let line = "usbver=2, port_3 = 1-1, port_1=1-2"
        #expect(try USBLine(parsing: line).ports.map(\.position) == [31, 19])
    }

    @Test(arguments: [
        ("usbver", "'usbver' is no key=value; known are usbver, numports, port_1 … port_31", 0),
        ("usbver=2, 1-1", "'1-1' is no key=value", 10),
        ("usbver=4", "usbver is 1 (USB 1.1) or 2 (USB 2.0), not '4'", 7),
        ("usbver=2.0", "not '2.0'", 7), ("usbver=", "not ''", 7), ("usbver=02", "not '02'", 7),
        ("usbver=+2", "not '+2'", 7), ("usbver=2,usbver=2", "usbver given twice", 16),
        ("numports=0", "numports is a number from 1 to 31, not '0'", 9), ("numports=32", "not '32'", 9),
        ("numports=99999999999999999999", "numports is a number from 1 to 31", 9), ("numports=-1", "not '-1'", 9),
        ("numports=8,numports=8", "numports given twice", 20),
        ("port_0=1-1", "ports are port_1 … port_31, not 'port_0'", 0), ("port_32=1-1", "not 'port_32'", 0),
        ("port_=1-1", "not 'port_'", 0), ("port_01=1-1", "not 'port_01'", 0), ("port_1x=1-1", "not 'port_1x'", 0),
        ("port_1=1-1,port_1=1-2", "port_1 given twice", 11), ("port_1=,port_1=1-2", "port_1 given twice", 8),
        ("port_1=1-1, port_2 = 1-1", "1-1 is in port 1 already", 21),
        ("numports=2,port_3=1-1", "there is no port 3: the controller has numports=2", 18),
        ("port_9=1-1", "there is no port 9: the controller has numports=8", 7),
        ("port1=1-1", "unknown key 'port1'; known are usbver", 0), ("=1", "unknown key ''", 0),
        ("usbver=1,Numports=2", "unknown key 'Numports'", 9),
        ("port_1=a\0b", "a NUL character", 7),
        // What the manuals have and a PV controller has not, by its name.
        ("type=qusb,version=2,ports=8", "type=qusb is a controller of the device model; xenbackd serves type=pv", 5),
        ("type=devicemodel,version=3,ports=8", "type=devicemodel is a controller of the device model", 5),
        ("type=pv,version=3", "version=3: PV controllers are of USB 1.1 or 2.0", 16),
        ("usbver=3", "usbver=3: PV controllers", 7),
        ("type=hostdev,hostbus=1,hostaddr=3", "type=hostdev says which device; this line makes a controller", 5),
        ("hostbus=1,hostaddr=3,controller=0,port=1", "hostbus= says which device; this line makes a controller", 0),
        ("controller=0,port=1", "controller= says which device", 0), ("ports=2,port=1", "port= says which device", 8),
        ("usbctrl=['type=pv,ports=4']", "usbctrl=[…] belongs in a configuration file", 0),
        ("vusb=[\"usbver=2\"]", "vusb=[…] belongs in a configuration file", 0),
        ("usb=1", "usb= is for the device model's emulated USB", 0),
        ("usbdevice=tablet", "usbdevice= is for the device model's emulated USB", 0),
        ("usbversion=2", "usbversion= is for the device model's", 0), ("backend=dd,ports=4", "no backend=", 0),
        ("type=PV", "type is pv or auto, not 'PV'", 5), ("type=", "type is pv or auto, not ''", 5),
        ("version=2,usbver=2", "usbver given twice", 17), ("numports=4,ports=4", "ports given twice", 17),
        ("ports=32", "ports is a number from 1 to 31, not '32'", 6), ("version=2.0", "version is 1 (USB 1.1) or 2", 8),
    ])
    func refuses(_ line: String, _ reason: String, _ position: Int) {
        do throws(DeviceLineError) {
            let parsed = try USBLine(parsing: line)
            Issue.record("read as \(parsed)")
        } catch {
            #expect(error.reason.contains(reason), "\(error)")
            #expect(error.position == position, "\(error)")
            #expect(error.description.hasSuffix("\n  \(line)\n  \(String(repeating: " ", count: position))^"))
        }
    }

    /// Whatever is cut, doubled or exchanged: a controller or an error, never a trap, and the place is inside the line.
    @Test func noLineTraps() {
        let parts = [
            ",", "=", " ", "usbver=", "numports=", "port_", "port_1=", "31", "2", "1-1", "3-1.5", "\0", "é", "\u{301}",
            "\r\n", "-", "_", "port_31=", "0",
        ]
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<5000 {
            let count = Int.random(in: 0...8, using: &generator)
            let line = (0..<count).map { _ in parts[Int.random(in: 0..<parts.count, using: &generator)] }.joined()
            do throws(DeviceLineError) {
                let read = try USBLine(parsing: line)
                if !(1...31).contains(read.portCount) || read.ports.contains(where: { $0.number > read.portCount }) {
                    Issue.record("\(line)")
                }
            } catch {
                if error.position < 0 || error.position > line.count { Issue.record("\(line)") }
            }
        }
    }
}
