// Lines of netchannel2 cards: xend's syntax with every option it had, ours besides, and errors that show the place.

import ControlProtocol
import Testing

@Suite struct Network2LineTests {
    private static func line(_ edit: (inout Network2Line) -> Void) -> Network2Line {
        var line = Network2Line()
        edit(&line)
        return line
    }

    @Test(arguments: [
        ("", line { _ in }),
        ("bridge=eth1", line { $0.bridge = "eth1" }),
        // A deployment's own, with its comma.
        ("bridge=br0,", line { $0.bridge = "br0" }),
        (
            " bridge = xenbr0 , mac = 00:16:3E:12:34:56 ",
            line {
                $0.bridge = "xenbr0"
                $0.frontMAC = "00:16:3e:12:34:56"
            }
        ),
        (
            "front_mac=00:16:3e:00:00:01,back_mac=fe:ff:ff:ff:ff:ff,backend=0,trusted=1,back_trusted=0,"
                + "front_filter_mac=0,filter_mac=1,bridge=b,pdev=eth0,max_bypasses=0",
            line {
                $0.frontMAC = "00:16:3e:00:00:01"
                $0.backMAC = "fe:ff:ff:ff:ff:ff"
                $0.isTrusted = true
                $0.isBackTrusted = false
                $0.frontFilters = false
                $0.filters = true
                $0.bridge = "b"
                $0.physicalDevice = "eth0"
                $0.maxBypasses = 0
            }
        ),
        ("rate=10Mb/s,mtu=9000", line { ($0.rate, $0.mtu) = ("62500,50000", 9000) }),
        ("rate=250KB/s@20ms", line { $0.rate = "5000,20000" }),
        ("rate=1GB/s@1s", line { $0.rate = "1000000000,1000000" }),
        ("rate=800b/s@1s", line { $0.rate = "100,1000000" }),
    ])
    func reads(_ text: String, _ expected: Network2Line) throws {
        #expect(try Network2Line(parsing: text) == expected)
    }

    @Test(arguments: [
        ("bridge", "'bridge' is no key=value; known are bridge, mac", 0),
        ("bridge=", "bridge is a name of 1 to 15 printable characters, not ''", 7),
        ("bridge=a/b", "not 'a/b'", 7), ("bridge=a b", "not 'a b'", 7), ("bridge=0123456789abcdef", "1 to 15", 7),
        ("mac=00:16:3e", "mac is an address like 00:16:3e:12:34:56, not '00:16:3e'", 4),
        ("mac=01:00:5e:00:00:01", "a multicast address, which no card has", 4),
        ("mac=00:16:3e:00:00:01,front_mac=00:16:3e:00:00:01", "front_mac given twice", 22),
        ("trusted=yes", "trusted is 0 or 1, not 'yes'", 8), ("filter_mac=", "filter_mac is 0 or 1", 11),
        ("max_bypasses=-1", "max_bypasses is a number from 0 to 65535", 13),
        ("mtu=67", "mtu is a number from 68 to 65535", 4), ("mtu=65536", "not '65536'", 4),
        ("rate=10", "rate is like 10Mb/s", 5), ("rate=10M/s", "rate is like", 5), ("rate=/s", "rate is like", 5),
        ("rate=10Mb/s@", "rate is like", 5), ("rate=10Mb/s@0ms", "rate is like", 5),
        ("rate=1b/s@1us", "too small or too large", 5),
        ("rate=99999999999999GB/s", "rate is like", 5), ("rate=9999999999GB/s@4000s", "too small or too large", 5),
        ("bridge=a, backend=3", "served by the domain that xenback runs in: no backend=3", 10),
        ("vif2=['bridge=eth1']", "belongs in a configuration file", 0),
        ("script=vif-bridge", "script= is for cards of kind vif", 0), ("vlan=3", "unknown key 'vlan'", 0),
        ("bridge=a\u{0}", "a NUL character", 0),
    ])
    func refuses(_ text: String, _ reason: String, _ position: Int) throws {
        let error = try #require(throws: DeviceLineError.self) { try Network2Line(parsing: text) }
        #expect(error.reason.contains(reason), "\(error)")
        #expect(error.position == position, "\(error)")
        #expect(error.description.hasPrefix("card line, character \(position + 1): "))
    }
}
