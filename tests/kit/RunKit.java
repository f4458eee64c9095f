// Runs one package of an Eclipse dataspace compatibility kit and prints one line per test.
// Usage: java -cp 'lib/*' RunKit.java LAUNCHER_CLASS TEST_PACKAGE CONFIG.properties
import java.io.FileReader;
import java.util.HashMap;
import java.util.Properties;
import org.eclipse.dataspacetck.core.spi.system.SystemLauncher;
import org.eclipse.dataspacetck.core.system.ConsoleMonitor;
import org.eclipse.dataspacetck.runtime.TckRuntime;

public class RunKit {
    public static void main(String[] args) throws Exception {
        var read = new Properties();
        try (var reader = new FileReader(args[2])) {
            read.load(reader);
        }
        var properties = new HashMap<String, String>();
        read.forEach((key, value) -> properties.put(key.toString(), value.toString()));
        var summary = TckRuntime.Builder.newInstance()
                .properties(properties)
                .launcher(Class.forName(args[0]).asSubclass(SystemLauncher.class))
                .addPackage(args[1])
                .monitor(new ConsoleMonitor(false, false))
                .build()
                .execute();
        summary.getFailures().forEach(failure -> System.out.println(
                "FAILED " + failure.getTestIdentifier().getDisplayName() + " | " + failure.getException()));
        System.out.println("Passed tests: " + summary.getTestsSucceededCount());
        System.out.println("Failed tests: " + summary.getTestsFailedCount());
        System.out.println("Skipped tests: " + summary.getTestsSkippedCount());
        System.exit(0); // the kit's own server threads would keep the process alive
    }
}
