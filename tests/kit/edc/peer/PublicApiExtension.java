package peer;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import org.eclipse.edc.connector.dataplane.spi.Endpoint;
import org.eclipse.edc.connector.dataplane.spi.iam.DataPlaneAuthorizationService;
import org.eclipse.edc.connector.dataplane.spi.iam.PublicEndpointGeneratorService;
import org.eclipse.edc.runtime.metamodel.annotation.Extension;
import org.eclipse.edc.runtime.metamodel.annotation.Inject;
import org.eclipse.edc.spi.system.ServiceExtension;
import org.eclipse.edc.spi.system.ServiceExtensionContext;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.util.Map;
import java.util.concurrent.Executors;

/** The endpoint bytes are pulled from: EDC checks the token and names the source, this passes its bytes on. */
@Extension("Peer public endpoint")
public class PublicApiExtension implements ServiceExtension {
    private static final String PATH = "/public";

    @Inject private DataPlaneAuthorizationService authorization;
    @Inject private PublicEndpointGeneratorService generator;
    private HttpServer server;

    @Override
    public void initialize(ServiceExtensionContext context) {
        var port = context.getSetting("peer.public.port", 8185);
        generator.addGeneratorFunction("HttpData", source -> Endpoint.url("http://127.0.0.1:" + port + PATH));
        try {
            server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        } catch (IOException e) {
            throw new IllegalStateException(e);
        }
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.createContext(PATH, this::handle);
    }

    @Override
    public void start() {
        server.start();
    }

    @Override
    public void shutdown() {
        server.stop(0);
    }

    private void handle(HttpExchange exchange) throws IOException {
        try (exchange) {
            var header = exchange.getRequestHeaders().getFirst("Authorization");
            if (header == null) {
                exchange.sendResponseHeaders(401, -1);
                return;
            }
            var token = header.startsWith("Bearer ") ? header.substring(7) : header;
            var source = authorization.authorize(token, Map.of("method", exchange.getRequestMethod()));
            if (source.failed()) {
                exchange.sendResponseHeaders(403, -1);
                return;
            }
            try (var in = URI.create(source.getContent().getStringProperty("baseUrl")).toURL().openStream()) {
                exchange.sendResponseHeaders(200, 0);
                in.transferTo(exchange.getResponseBody());
            }
        }
    }
}
