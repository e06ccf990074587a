// Placeholder until the program lands.
@main
enum Program { static func main() {} }
