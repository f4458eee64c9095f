"""Who a person is: sign-in by OpenID Connect, sessions bound to a key, visas of GA4GH."""
