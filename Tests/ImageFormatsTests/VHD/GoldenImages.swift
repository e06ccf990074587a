// Images as other programs made them: the rows of 32 bytes that are not zero, without their trailing zeros.

import Testing

@testable import ImageFormats

/// A whole image file, kept as its rows.
struct GoldenImage {
    let byteCount: Int
    /// Offset of the first row, how many equal rows follow one another, and the row's bytes in hexadecimal.
    let rows: [(Int, Int, String)]

    var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: byteCount)
        for (offset, count, text) in rows {
            let digits = Array(text.utf8)
            for repetition in 0..<count {
                for index in 0..<digits.count / 2 {
                    let pair = String(decoding: digits[2 * index..<2 * index + 2], as: UTF8.self)
                    bytes[offset + 32 * repetition + index] = UInt8(pair, radix: 16) ?? 0
                }
            }
        }
        return bytes
    }

    var source: MemoryFile { MemoryFile(bytes) }
}

extension GoldenImage {
    /// `vhd-util create -n t.vhd -s 4` (blktap 79774319).
    static let dynamic = GoldenImage(
        byteCount: 3584,
        rows: [
            (0x0, 1, "636f6e656374697800000002000100000000000000000200329e1b3b746170"),
            (0x20, 1, "0001000300000000000000000040000000000000004000000078041100000003"),
            (0x40, 1, "fffff1fa9e782558cf2b43909880231aa5cd817c"),
            (0x200, 1, "6378737061727365ffffffffffffffff00000000000006000001000000000002"),
            (0x220, 1, "00200000fffff475"),
            (0x600, 1, "ffffffffffffffff"),
            (0x800, 1, "74646261746d61700000000000000a000000000100010002ffffffff"),
            (0xc00, 1, "636f6e656374697800000002000100000000000000000200329e1b3b746170"),
            (0xc20, 1, "0001000300000000000000000040000000000000004000000078041100000003"),
            (0xc40, 1, "fffff1fa9e782558cf2b43909880231aa5cd817c"),
        ]
    )

    /// `vhd-util snapshot -e -n k.vhd -p t.vhd` of that one.
    static let child = GoldenImage(
        byteCount: 5120,
        rows: [
            (0x0, 1, "636f6e656374697800000002000100000000000000000200329e1b3b746170"),
            (0x20, 1, "0001000300000000000000000040000000000000004000000078041100000004"),
            (0x40, 1, "fffff134957f24adb74c40579b22e868558f8ced"),
            (0x200, 1, "6378737061727365ffffffffffffffff00000000000006000001000000000002"),
            (0x220, 1, "00200000ffffe5ab9e782558cf2b43909880231aa5cd817c329e1b3b"),
            (0x240, 1, "0074002e007600680064"),
            (0x440, 1, "4d616358000002000000000e000000000000000000000c0057326b75000002"),
            (0x460, 1, "0000000e000000000000000000000e0057327275000002000000000e"),
            (0x480, 1, "00000000000010"),
            (0x600, 1, "ffffffffffffffff"),
            (0x800, 1, "74646261746d61700000000000000a000000000100010002ffffffff"),
            (0xc00, 1, "66696c653a2f2f2e2f742e766864"),
            (0xe00, 1, "2e005c0074002e007600680064"),
            (0x1000, 1, "2e005c0074002e007600680064"),
            (0x1200, 1, "636f6e656374697800000002000100000000000000000200329e1b3b746170"),
            (0x1220, 1, "0001000300000000000000000040000000000000004000000078041100000004"),
            (0x1240, 1, "fffff134957f24adb74c40579b22e868558f8ced"),
        ]
    )

    /// `vhd-util create -n f.vhd -s 8` and `vhd-util fill -n f.vhd`: all blocks, full of zeros.
    static let filled = GoldenImage(
        byteCount: 8_405_504,
        rows: [
            (0x0, 1, "636f6e656374697800000002000100000000000000000200329e1b3b746170"),
            (0x20, 1, "00010003000000000000000000800000000000000080000000f0041100000003"),
            (0x40, 1, "ffffeffcd41fc4b6b79b440a9fdd4a2832cb64ce"),
            (0x200, 1, "6378737061727365ffffffffffffffff00000000000006000001000000000004"),
            (0x220, 1, "00200000fffff473"),
            (0x600, 1, "000000070000100f000020170000301f"),
            (0x800, 1, "74646261746d61700000000000000a000000000100010002ffffff0f"),
            (0xa00, 1, "f0"),
            (0xc00, 1, "636f6e656374697800000002000100000000000000000200329e1b3b746170"),
            (0xc20, 1, "00010003000000000000000000800000000000000080000000f0041100000003"),
            (0xc40, 1, "ffffeffcd41fc4b6b79b440a9fdd4a2832cb64ce"),
            (0xe00, 16, "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
            (0x201000, 1, "636f6e656374697800000002000100000000000000000200329e1b3b746170"),
            (0x201020, 1, "00010003000000000000000000800000000000000080000000f0041100000003"),
            (0x201040, 1, "ffffeffcd41fc4b6b79b440a9fdd4a2832cb64ce"),
            (0x201e00, 16, "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
            (0x402000, 1, "636f6e656374697800000002000100000000000000000200329e1b3b746170"),
            (0x402020, 1, "00010003000000000000000000800000000000000080000000f0041100000003"),
            (0x402040, 1, "ffffeffcd41fc4b6b79b440a9fdd4a2832cb64ce"),
            (0x402e00, 16, "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
            (0x603000, 1, "636f6e656374697800000002000100000000000000000200329e1b3b746170"),
            (0x603020, 1, "00010003000000000000000000800000000000000080000000f0041100000003"),
            (0x603040, 1, "ffffeffcd41fc4b6b79b440a9fdd4a2832cb64ce"),
            (0x603e00, 16, "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
            (0x804000, 1, "636f6e656374697800000002000100000000000000000200329e1b3b746170"),
            (0x804020, 1, "00010003000000000000000000800000000000000080000000f0041100000003"),
            (0x804040, 1, "ffffeffcd41fc4b6b79b440a9fdd4a2832cb64ce"),
        ]
    )

    /// `vhd-util create -n r.vhd -s 5 -S 100`: room for growing.
    static let roomy = GoldenImage(
        byteCount: 3584,
        rows: [
            (0x0, 1, "636f6e656374697800000002000100000000000000000200329e1b3b746170"),
            (0x20, 1, "00010003000000000000000000600000000000000060000000b4041100000003"),
            (0x40, 1, "fffff28d4f64791749d94bca911c483f68d3101c"),
            (0x200, 1, "6378737061727365ffffffffffffffff00000000000006000001000000000032"),
            (0x220, 1, "00200000fffff445"),
            (0x600, 6, "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
            (0x6c0, 1, "ffffffffffffffff"),
            (0x800, 1, "74646261746d61700000000000000a000000000100010002ffffffff"),
            (0xc00, 1, "636f6e656374697800000002000100000000000000000200329e1b3b746170"),
            (0xc20, 1, "00010003000000000000000000600000000000000060000000b4041100000003"),
            (0xc40, 1, "fffff28d4f64791749d94bca911c483f68d3101c"),
        ]
    )

    /// `vhd-util snapshot -n m.vhd -p raw.img -m`, of a raw parent.
    static let onRaw = GoldenImage(
        byteCount: 5120,
        rows: [
            (0x0, 1, "636f6e656374697800000002000100000000000000000200329e1b3c746170"),
            (0x20, 1, "0001000300000000000000000040000000000000004000000078041100000004"),
            (0x40, 1, "fffff02631e9a27a9087472891cfb977b8c58da0"),
            (0x200, 1, "6378737061727365ffffffffffffffff00000000000006000001000000000002"),
            (0x220, 1, "00200000ffffebf300000000000000000000000000000000329e1b3c"),
            (0x240, 1, "007200610077002e0069006d0067"),
            (0x440, 1, "4d6163580000020000000010000000000000000000000c0057326b75000002"),
            (0x460, 1, "00000012000000000000000000000e00573272750000020000000012"),
            (0x480, 1, "00000000000010"),
            (0x600, 1, "ffffffffffffffff"),
            (0x800, 1, "74646261746d61700000000000000a000000000100010002ffffffff"),
            (0xc00, 1, "66696c653a2f2f2e2f7261772e696d67"),
            (0xe00, 1, "2e005c007200610077002e0069006d0067"),
            (0x1000, 1, "2e005c007200610077002e0069006d0067"),
            (0x1200, 1, "636f6e656374697800000002000100000000000000000200329e1b3c746170"),
            (0x1220, 1, "0001000300000000000000000040000000000000004000000078041100000004"),
            (0x1240, 1, "fffff02631e9a27a9087472891cfb977b8c58da0"),
        ]
    )

    /// `qemu-img create -f vpc q.vhd 4M`, then `qemu-io write -P 0x5a 64k 8k` (QEMU 7.2).
    static let qemu = GoldenImage(
        byteCount: 2_100_224,
        rows: [
            (0x0, 1, "636f6e656374697800000002000100000000000000000200329e1b3c71656d75"),
            (0x20, 1, "000500035769326b000000000040480000000000004048000079041100000003"),
            (0x40, 1, "ffffef413d112dc7949f402e939bb5dc2d80f632"),
            (0x200, 1, "6378737061727365ffffffffffffffff00000000000006000001000000000003"),
            (0x220, 1, "00200000fffff474"),
            (0x600, 1, "00000004ffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
            (0x620, 31, "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
            (0x10a00, 256, "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"),
            (0x200a00, 1, "636f6e656374697800000002000100000000000000000200329e1b3c71656d75"),
            (0x200a20, 1, "000500035769326b000000000040480000000000004048000079041100000003"),
            (0x200a40, 1, "ffffef413d112dc7949f402e939bb5dc2d80f632"),
        ]
    )

    /// `qemu-img create -f vpc -o subformat=fixed,force_size=on qf.vhd 1M` (QEMU 7.2).
    static let qemuFixed = GoldenImage(
        byteCount: 1_049_088,
        rows: [
            (0x100000, 1, "636f6e65637469780000000200010000ffffffffffffffff329e1b3c71656d32"),
            (0x100020, 1, "000500035769326b00000000001000000000000000100000ffff10ff00000002"),
            (0x100040, 1, "ffffe4457f8bde2dda5c4ab5b7e0a038b36f8fc8"),
        ]
    )
}
