// A value made at first use, once, by whichever thread needs it first.

internal import Synchronization
internal import SystemPackage

final class Lazily<Value: Sendable>: Sendable {
    private let value = Mutex<Value?>(nil)

    func get(_ make: () throws(Errno) -> Value) throws(Errno) -> Value {
        try value.withLock { (value) throws(Errno) in
            if let value { return value }
            let made = try make()
            value = made
            return made
        }
    }
}
